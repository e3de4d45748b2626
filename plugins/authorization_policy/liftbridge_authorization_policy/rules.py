"""Rules by the plain model: one look-up, however many there are."""

import logging
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

from liftbridge.interfaces.authorizer import CLUSTER
from liftbridge.protocol.generated import api_pb2 as api
from liftbridge_authorization_policy.policy_file import Line, wrong_line

logger = logging.getLogger(__name__)

_METHODS = {method.name for method in api.DESCRIPTOR.services_by_name["API"].methods} - {"PublishAsync"}


class PlainRules:
    """What is named is allowed."""

    def __init__(self, path: Path, lines: Iterable[Line]) -> None:
        """Raises ConfigError for a line that is no rule, and warns of rules that can't mean what they seem to."""
        self._allowed = set()
        for line in lines:
            if line.kind != "p" or len(line.values) != 3:
                raise wrong_line(path, line.number, "a rule is written as: p, client, resource, method")
            client, resource, method = line.values
            _warn(path, line.number, resource, method)
            self._allowed.add((client, method, resource))

    def __len__(self) -> int:
        return len(self._allowed)

    def allow(self, identity: str, method: str, resource: str) -> bool:
        """Whether a rule says exactly that."""
        return (identity, method, resource) in self._allowed


def _warn(path: Path, number: int, resource: str, method: str) -> None:
    if method not in _METHODS:
        meant = "Publish" if method == "PublishAsync" else "".join(get_close_matches(method, _METHODS, n=1))
        hint = f'; did you mean "{meant}"?' if meant else ""
        logger.warning('%s, line %d allows nothing: there is no method "%s"%s', path, number, method, hint)
    elif (resource == CLUSTER) != (method == "FetchMetadata"):
        text = "FetchMetadata has the resource * and only that" if resource != CLUSTER else "* is no wildcard here"
        logger.warning("%s, line %d allows nothing: %s", path, number, text)

"""The authorizer: reads the files, and asks the rules that they make."""

import asyncio
import logging
from pathlib import Path

from liftbridge.interfaces.authorizer import Authorizer
from liftbridge_authorization_policy.casbin_rules import CasbinRules
from liftbridge_authorization_policy.model import is_plain
from liftbridge_authorization_policy.policy_file import read_policy
from liftbridge_authorization_policy.rules import PlainRules

logger = logging.getLogger(__name__)


class PolicyAuthorizer(Authorizer):
    """See :class:`liftbridge.interfaces.authorizer.Authorizer`. ``model`` is None for the plain one."""

    def __init__(self, policy: Path, model: Path | None = None) -> None:
        self._policy = policy
        self._model = model
        self._rules: PlainRules | CasbinRules | None = None

    async def load(self) -> None:
        """In a thread, because files may be large and disks slow."""
        self._rules = await asyncio.to_thread(self._read)
        logger.info("Authorization: %d rules in %s", len(self._rules), self._policy)

    def _read(self) -> PlainRules | CasbinRules:
        lines = read_policy(self._policy)
        if self._model is None or is_plain(self._model):
            return PlainRules(self._policy, lines)
        return CasbinRules(self._model, self._policy, lines)

    def allows(self, identity: str, method: str, resource: str) -> bool:
        return self._rules is not None and self._rules.allow(identity, method, resource)

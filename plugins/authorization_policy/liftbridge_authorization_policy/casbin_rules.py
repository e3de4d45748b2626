"""Rules by a model of the operator's, which the library casbin evaluates. It looks at one rule after the other.

The library passes over lines that it doesn't know, and tells of others only when it decides. So they are checked before.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from liftbridge.errors import ConfigError
from liftbridge_authorization_policy.policy_file import Line, wrong_line

_NOBODY = ("nobody", "*", "FetchMetadata")
#: Rules that the model is tried out with.
_TRIED_OUT = 10


class CasbinRules:
    """What the model allows by the lines of the policy file."""

    def __init__(self, model: Path, path: Path, lines: Sequence[Line]) -> None:
        """Raises ConfigError for a model that can't be used, and for a line that doesn't fit into it."""
        self._count = len(lines)
        self._enforcer = _make_enforcer(model)
        for line in lines:
            _add(self._enforcer.model.model, path, line)
        self._enforcer.build_role_links()
        self._try_out(model, lines)

    def _try_out(self, model: Path, lines: Sequence[Line]) -> None:
        """Mistakes in the matcher show when it is evaluated; to its end, where the first comparisons are true."""
        try:
            self._enforcer.enforce(*_NOBODY)
            for line in lines[:_TRIED_OUT]:
                if line.kind == "p" and len(line.values) >= len(_NOBODY):
                    self._enforcer.enforce(*line.values[: len(_NOBODY)])
        except Exception as error:  # the library lets everything through that its parts raise
            raise _unusable(model, error) from error

    def __len__(self) -> int:
        return self._count

    def allow(self, identity: str, method: str, resource: str) -> bool:
        """What the model's matcher and effect say."""
        return bool(self._enforcer.enforce(identity, resource, method))


def _make_enforcer(model: Path) -> Any:
    try:
        import casbin
    except ImportError as error:
        raise ConfigError(
            f"failed to initialize authorization policy enforcer: {model} does more than compare client, resource and method, "
            "and that takes a library: pip install 'liftbridge[casbin]'"
        ) from error
    logging.getLogger("casbin").setLevel(logging.ERROR)  # it tells of every decision
    try:
        return casbin.Enforcer(str(model))
    except Exception as error:  # a file that is no model: TypeError, KeyError, RuntimeError and others
        raise _unusable(model, error) from error


def _unusable(model: Path, error: Exception) -> ConfigError:
    return ConfigError(
        f"failed to initialize authorization policy enforcer: {model} is no model that can be used: "
        f"{type(error).__name__}: {' '.join(str(error).split())}"
    )


def _add(model: Any, path: Path, line: Line) -> None:
    definition = model.get(line.kind[0], {}).get(line.kind)
    if definition is None or line.kind[0] not in "pg":
        raise wrong_line(path, line.number, f'the model defines no "{line.kind}"')
    wanted = len(definition.tokens) if line.kind[0] == "p" else definition.value.count("_")
    if len(line.values) != wanted:
        raise wrong_line(
            path, line.number, f'"{line.kind}" has {wanted} values by the model, and {len(line.values)} here'
        )
    definition.policy.append(list(line.values))

"""The calls that this version doesn't serve yet: they say so."""

from typing import Any

from liftbridge.broker.api import CallContext, UnaryHandler
from liftbridge.errors import Unimplemented

_METHODS = (
    "PauseStream",
    "SetStreamReadonly",
)


def unimplemented_handlers() -> dict[str, UnaryHandler]:
    """A handler for each that answers UNIMPLEMENTED."""
    return {method: _handler(method) for method in _METHODS}


def _handler(method: str) -> UnaryHandler:
    async def handle(request: Any, call: CallContext) -> Any:
        raise Unimplemented(f"{method} is not implemented yet by this server")

    return handle

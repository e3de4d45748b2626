"""The seam of client endpoints: what serves clients from the broker's handlers."""

from abc import ABC, abstractmethod

#: A capability of endpoints that are for who watches over the server, and that its clients can't use. The kernel refuses
#: one in the first place, whose address clients are told.
FOR_OPERATORS = "operators"


class Endpoint(ABC):
    """Listens for clients and calls the broker (:mod:`liftbridge.broker.api`). Runs on the event loop."""

    async def bind(self) -> None:  # noqa: B027  (optional on purpose)
        """Takes the address and serves nobody: a server does so before it joins a cluster, so that an address that is in
        use leaves no trace there. Raises :class:`~liftbridge.errors.ConfigError` naming the address when it can't. Optional:
        ``start`` binds what isn't bound. ``stop`` gives the address back, also without a ``start``."""

    @abstractmethod
    async def start(self) -> None:
        """Binds, unless ``bind`` did, and serves. Raises :class:`~liftbridge.errors.ConfigError` as ``bind``."""

    @property
    @abstractmethod
    def port(self) -> int:
        """The port that is bound, known after ``start`` (it matters when the configured port is 0)."""

    @property
    def advertised_host(self) -> str:
        """The host that clients are told to connect to, with the bound port."""
        return "127.0.0.1"

    @abstractmethod
    def set_serving(self, serving: bool) -> None:
        """What health checks say."""

    @abstractmethod
    async def stop(self, *, grace_s: float) -> None:
        """Refuses new calls, lets running ones end for up to ``grace_s``, then closes. Idempotent."""

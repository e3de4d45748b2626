"""The seam of authorization: who may do what."""

from abc import ABC, abstractmethod

#: The resource of FetchMetadata, which is about the whole cluster.
CLUSTER = "*"


class Authorizer(ABC):
    """Says which client may call what on which resource. Everything runs on the event loop.

    The kernel asks once for each question and remembers the answer until the next ``load``, so a decision may take some
    time, but nothing else happens meanwhile.
    """

    @abstractmethod
    async def load(self) -> None:
        """Reads the rules: once before clients are served, and again when the operator asks for it; never twice at a time.
        Raises :class:`~liftbridge.errors.ConfigError`, which says what is wrong and where; then the rules from before
        hold on. Must not block the event loop for long."""

    @abstractmethod
    def allows(self, identity: str, method: str, resource: str) -> bool:
        """Whether a client may do that, by the rules loaded last; nobody may do anything before there are any.

        ``identity`` is the verified name of the client, never empty. ``method`` is the name of a call of ``proto.API``;
        PublishAsync counts as ``Publish``. ``resource`` is the name of a stream, which needn't exist, or the ID of a group
        for the calls of consumer groups, the NATS subject for PublishToSubject, and :data:`CLUSTER` for FetchMetadata. It
        is text that a client made up, of any length. What this raises is taken for a no, and as a bug.
        """

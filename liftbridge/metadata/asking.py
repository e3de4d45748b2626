"""Asking the metadata leader, whoever it is, over the transport."""

import asyncio

from google.protobuf.message import DecodeError

from liftbridge.clock import Clock
from liftbridge.errors import FailedPrecondition, TransportError, Unavailable
from liftbridge.interfaces.transport import Transport
from liftbridge.protocol.generated import internal_pb2 as internal

#: One attempt. A leader that lost its place without knowing may take the question and never answer.
_ATTEMPT_S = 1.0
_PAUSE_S = 0.05


def controller_subject(namespace: str) -> str:
    """Where the metadata leader, and nobody else, listens."""
    return f"{namespace}.cluster.controller"


class NoAnswerYet(Exception):
    """Not done, and asking again may help; a proposal with a request ID can be repeated safely."""


class ControllerClient:
    """Asks for one server, or for an operator; ``cluster_id`` is "" for who doesn't belong to the cluster, or not yet."""

    def __init__(self, transport: Transport, namespace: str, clock: Clock, *, cluster_id: str, sender: str) -> None:
        self._transport = transport
        self._subject = controller_subject(namespace)
        self._clock = clock
        self.cluster_id = cluster_id
        self._sender = sender

    async def ask(self, request: internal.ControlRequest, *, timeout_s: float) -> internal.ControlReply:
        """Asks until there is an answer. Raises FailedPrecondition when the cluster refuses, and Unavailable
        (it may have happened) when time is over."""
        deadline_ns = self._clock.monotonic_ns() + int(timeout_s * 1e9)
        problem = Unavailable("there is no metadata leader to ask")
        while (remaining_s := (deadline_ns - self._clock.monotonic_ns()) / 1e9) > 0:
            try:
                return await self.ask_once(request, timeout_s=remaining_s)
            except NoAnswerYet as error:
                problem = Unavailable(str(error))
            await asyncio.sleep(min(_PAUSE_S, remaining_s))
        raise problem

    async def ask_once(self, request: internal.ControlRequest, *, timeout_s: float) -> internal.ControlReply:
        """One attempt, of a second at most. Raises NoAnswerYet, or FailedPrecondition when the cluster refuses."""
        attempt_s = min(timeout_s, _ATTEMPT_S)
        request.cluster_id = self.cluster_id
        request.sender = self._sender
        request.timeout_ms = int(attempt_s * 1000)
        try:
            data = await self._transport.request(self._subject, request.SerializeToString(), timeout_s=attempt_s)
            reply = internal.ControlReply.FromString(data)
        except (TransportError, DecodeError) as error:
            raise NoAnswerYet(f"no answer from the metadata leader: {error}") from error
        if not reply.HasField("error"):
            return reply
        if reply.error.kind == internal.ControlError.REFUSED:
            raise FailedPrecondition(reply.error.text)
        raise NoAnswerYet(reply.error.text)

"""What arrives on a partition's subject: plain payloads and publish envelopes become runs."""

import logging
from collections.abc import Sequence
from typing import NamedTuple

from google.protobuf.message import DecodeError

from liftbridge.clock import Clock
from liftbridge.errors import ProtocolError, TransportError
from liftbridge.interfaces.transport import Delivery, Transport
from liftbridge.partition.partition import PartitionKey
from liftbridge.partition.pending import AckSink, PendingRun
from liftbridge.partition.refusal import Refusal, RefusalKind
from liftbridge.partition.waiting_room import Intake
from liftbridge.protocol.acks import AckTemplate, encode_ack_envelope
from liftbridge.protocol.envelope import MAGIC, MessageType, has_mark, mirror_mark, open_envelope
from liftbridge.protocol.generated import api_pb2 as api
from liftbridge.protocol.publish_requests import common_length
from liftbridge.protocol.record_encoding import VALUE_TAG
from liftbridge.protocol.request_fields import stored_fields
from liftbridge.protocol.varint import encode_varint

logger = logging.getLogger(__name__)

_ACK_ERRORS = {
    RefusalKind.INCORRECT_OFFSET: api.Ack.INCORRECT_OFFSET,
    RefusalKind.TOO_LARGE: api.Ack.TOO_LARGE,
}

_REPORT_NS = 5_000_000_000

#: What a plain message on a stream with concurrency control expects: the original reads the absent field as 0.
_PLAIN_EXPECTED_OFFSET = 0


def ack_error_of(refusal: Refusal) -> "api.Ack.Error":
    """The refusal in the few words that an ack has for it."""
    return _ACK_ERRORS.get(refusal.kind, api.Ack.UNKNOWN)


class InboxAcks:
    """Publishes acks to an ack inbox."""

    def __init__(self, transport: Transport, stream: str, base_subject: str, inbox: str) -> None:
        self._transport = transport
        self._stream = stream
        self._base_subject = base_subject
        self._inbox = inbox

    def stored(self, run: PendingRun, base_offset: int, reception_ns: int, commit_ns: int) -> None:
        if run.wants_ack:
            template = self._template(run, reception_ns, commit_ns)
            acks = (template.ack(offset, id_) for offset, id_ in enumerate(run.correlation_ids, base_offset))
            self._publish([encode_ack_envelope(ack) for ack in acks])

    def refused(self, run: PendingRun, refusal: Refusal) -> None:
        error = ack_error_of(refusal)
        template = self._template(run, 0, 0)
        self._publish([encode_ack_envelope(template.ack(0, id_, error)) for id_ in run.correlation_ids])

    def _template(self, run: PendingRun, reception_ns: int, commit_ns: int) -> AckTemplate:
        return AckTemplate(
            stream=self._stream,
            partition_subject=self._base_subject,
            message_subject=run.subject,
            ack_inbox=self._inbox,
            ack_policy=run.ack_policy,
            reception_timestamp_ns=reception_ns,
            commit_timestamp_ns=commit_ns,
        )

    def _publish(self, envelopes: Sequence[bytes]) -> None:
        try:
            self._transport.publish(self._inbox, envelopes)
        except (TransportError, ValueError) as error:
            logger.warning('ack inbox "%.80s": %d acks not sent: %s', self._inbox, len(envelopes), error)


class _Enveloped(NamedTuple):
    """A decoded publish envelope."""

    fields: bytes
    inbox: str
    ack_policy: int
    expected_offset: int
    correlation_id: bytes


class SubjectIngress:
    """The sink of one partition's subscription, which may serve several leaders of the partition one after the other, and
    waiting rooms between them: ``intake``. Counts what is not stored and asked for no ack: nobody else would know."""

    def __init__(
        self, intake: Intake, transport: Transport, clock: Clock, key: PartitionKey, base_subject: str
    ) -> None:
        self.intake = intake
        self._transport = transport
        self._clock = clock
        self._key = key
        self._base_subject = base_subject
        self._mark = mirror_mark(key.stream_id, key.partition)
        self.dropped_messages = 0
        self._reported_ns: int | None = None

    def receive(self, deliveries: list[Delivery]) -> None:
        if self.intake.stepped_down:
            return  # whoever leads now hears the same
        for delivery in deliveries:
            if any(payload.startswith(MAGIC) for payload in delivery.payloads):
                self._receive_enveloped(delivery)
            else:
                self._submit_plain(delivery.subject, delivery.reply, delivery.payloads)

    # --- plain payloads -----------------------------------------------------------------------------------------------

    def _submit_plain(self, subject: str, reply: str, payloads: list[bytes]) -> None:
        length = common_length(payloads)
        limit = self.intake.settings.max_message_bytes
        if length is None:
            if max(map(len, payloads)) > limit:
                payloads = self._without_oversize(payloads)
            items: Sequence[bytes] = [_value_field(payload) for payload in payloads]
            lead = b""
        elif length > limit:
            self._without_oversize(payloads)
            return
        else:
            items = payloads
            lead = VALUE_TAG + encode_varint(length) if length else b""
        if items:
            self._submit(
                PendingRun(
                    items=items,
                    item_bytes=length,
                    lead=lead,
                    subject=subject,
                    reply=reply,
                    expected_offset=_PLAIN_EXPECTED_OFFSET,
                    acks=self,
                    correlation_ids=[b""] * len(items),
                )
            )

    def _without_oversize(self, payloads: list[bytes]) -> list[bytes]:
        limit = self.intake.settings.max_message_bytes
        kept = [payload for payload in payloads if len(payload) <= limit]
        self._drop(len(payloads) - len(kept), f"larger than clustering.replication.max.bytes ({limit})")
        return kept

    # --- envelopes ----------------------------------------------------------------------------------------------------

    def _receive_enveloped(self, delivery: Delivery) -> None:
        """One by one, keeping the order between envelopes and plain payloads."""
        for payload in delivery.payloads:
            if has_mark(payload, self._mark):
                continue  # a leader of this partition took it: one that is no longer, or wasn't yet told that it is not
            enveloped = _open(payload)
            if enveloped is None:
                self._submit_plain(delivery.subject, delivery.reply, [payload])
                continue
            run = self._enveloped_run(delivery, enveloped)
            if len(payload) > self.intake.settings.max_message_bytes:
                self._refuse_oversize(run)
            else:
                self._submit(run)

    def _enveloped_run(self, delivery: Delivery, enveloped: _Enveloped) -> PendingRun:
        acks: AckSink = self
        if enveloped.inbox:
            acks = InboxAcks(self._transport, self._key.stream, self._base_subject, enveloped.inbox)
        return PendingRun(
            items=[enveloped.fields],
            item_bytes=len(enveloped.fields),
            subject=delivery.subject,
            reply=delivery.reply,
            ack_policy=enveloped.ack_policy,
            expected_offset=enveloped.expected_offset,
            acks=acks,
            correlation_ids=[enveloped.correlation_id],
            correlation_id_bytes=len(enveloped.correlation_id),
        )

    def _refuse_oversize(self, run: PendingRun) -> None:
        assert run.acks is not None
        run.acks.refused(run, Refusal(RefusalKind.TOO_LARGE, "message exceeds max replication size"))

    # --- both ---------------------------------------------------------------------------------------------------------

    def _submit(self, run: PendingRun) -> None:
        assert run.acks is not None
        if self.intake.overloaded:
            run.acks.refused(run, Refusal(RefusalKind.OVERLOADED, "too much waits for the disk; not stored"))
        else:
            self.intake.submit(run)

    # --- what asked for no ack ----------------------------------------------------------------------------------------

    def stored(self, run: PendingRun, base_offset: int, reception_ns: int, commit_ns: int) -> None:
        """Nobody wants to know."""

    def refused(self, run: PendingRun, refusal: Refusal) -> None:
        """Unless it may be stored, it is lost."""
        if refusal.kind is not RefusalKind.OUTCOME_UNKNOWN:
            self._drop(len(run.items), refusal.message)

    def _drop(self, count: int, reason: str) -> None:
        """Counts them, and says so now and then: they may come fast."""
        if not count:
            return
        self.dropped_messages += count
        now_ns = self._clock.monotonic_ns()
        if self._reported_ns is None or now_ns - self._reported_ns >= _REPORT_NS:
            self._reported_ns = now_ns
            logger.error(
                "%s: messages from NATS are not stored (%d so far): %s", self._key, self.dropped_messages, reason
            )


def _value_field(payload: bytes) -> bytes:
    return VALUE_TAG + encode_varint(len(payload)) + payload if payload else b""


def _open(payload: bytes) -> _Enveloped | None:
    """The publish request in an envelope; None for anything else, which is then stored as it came."""
    if not payload.startswith(MAGIC):
        return None
    try:
        message = api.Message.FromString(open_envelope(payload, MessageType.PUBLISH))
    except (ProtocolError, DecodeError):
        return None
    return _Enveloped(
        fields=stored_fields(message.key, message.value, message.headers),
        inbox=message.ackInbox,
        ack_policy=message.ackPolicy,
        expected_offset=message.offset,
        correlation_id=message.correlationId.encode(),
    )

"""What is wrong with a server's partitions, as heartbeats carry it: all of it, each time, so that nothing is to be undone."""

from collections.abc import Iterable, Iterator
from itertools import islice

from liftbridge.interfaces.log import LogId
from liftbridge.partition.troubles import Trouble, TroubleKind
from liftbridge.protocol.generated import internal_pb2 as internal

#: A heartbeat has to fit a message of the transport. Without its text a trouble takes about ten bytes.
_MAX_TOLD = 20_000
_MAX_TEXTS = 100
_MAX_TEXT_CHARACTERS = 500
_KINDS = frozenset(int(one) for one in TroubleKind)


def troubles_to_proto(troubles: Iterable[Trouble]) -> list[internal.PartitionTrouble]:
    """The first of them, and of the very first what the storage said."""
    return [
        internal.PartitionTrouble(
            stream_id=one.log_id.stream_id,
            partition=one.log_id.partition,
            kind=one.kind.name,
            text=one.text[:_MAX_TEXT_CHARACTERS] if number < _MAX_TEXTS else "",
        )
        for number, one in enumerate(islice(troubles, _MAX_TOLD))
    ]


def troubles_from_proto(message: internal.Heartbeat) -> Iterator[Trouble]:
    """Those that this version knows."""
    for one in message.troubles:
        if one.kind in _KINDS:
            yield Trouble(LogId(one.stream_id, one.partition), TroubleKind(one.kind), one.text)

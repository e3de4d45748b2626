"""Bugs that the model of streams must notice, put into the servers while they live. Those of replication are in
``broken_cluster.py``."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from operator import ge
from typing import Any
from unittest import mock

from liftbridge.metadata import partition_flags
from liftbridge.partition.replication.leading import LeaderReplication
from liftbridge_storage_segments.log import SegmentedLog
from liftbridge_storage_segments.segment import Segment


@dataclass(frozen=True)
class Bug:
    """``substitute`` stands in for ``target``. ``seed`` makes lives in which a rare one shows itself soon."""

    target: str
    substitute: Any
    needs_cluster: bool = False
    seed: int | None = None

    @contextmanager
    def put_back(self) -> Iterator[None]:
        with mock.patch(self.target, self.substitute):
            yield


_paused = partition_flags._paused
_open_segments = SegmentedLog._open_segments


def pauses_and_opens(*arguments: Any) -> Any:
    """Whatever is paused isn't readonly any more."""
    changed = _paused(*arguments)
    if changed is None:
        return None
    stream, event = changed
    partitions = tuple(replace(one, readonly=one.readonly and not one.paused) for one in stream.partitions)
    return replace(stream, partitions=partitions), event


class CommitsAlone(LeaderReplication):
    """Waits for nobody in the ISR."""

    def _count(self) -> bool:
        self._counted = ()
        return self._advance()


def forgets_last_segment(log: SegmentedLog) -> tuple[Segment, ...]:
    """What was written to last isn't there after a start."""
    segments = _open_segments(log)
    if len(segments) == 1:
        return segments
    segments[-1].remove()
    return segments[:-1]


BUGS: dict[str, Bug] = {
    "a pause ends readonly": Bug("liftbridge.metadata.partition_flags._paused", pauses_and_opens),
    "compaction drops the last message of a key": Bug("liftbridge.protocol.compaction.gt", ge),
    "the last segment is lost at a start": Bug(
        "liftbridge_storage_segments.log.SegmentedLog._open_segments", forgets_last_segment
    ),
    "what the leader has is committed": Bug(
        "liftbridge.partition.roles.LeaderReplication", CommitsAlone, needs_cluster=True, seed=40
    ),
}

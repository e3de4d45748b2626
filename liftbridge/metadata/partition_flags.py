"""Paused and readonly: what a command makes of a stream's partitions.

Each flag leaves the other alone. A pause begins a new partition epoch, so that changes of the ISR that were asked for
before, when followers seemed to fall silent, are stale; a resume begins a new leader epoch, like every other start of a
leader. The leader and the ISR stay as they are, and a paused partition fails over like any other.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from liftbridge.interfaces.events import MetadataEvent, MetadataEventKind
from liftbridge.metadata.commands import PausePartitions, ResumePartitions, SetReadonly
from liftbridge.metadata.model import PartitionState, RefusalReason, Refused, StreamState

FlagCommand = PausePartitions | ResumePartitions | SetReadonly


def with_flags(
    stream: StreamState | None, command: FlagCommand, index: int
) -> tuple[StreamState, MetadataEvent] | Refused | None:
    """The stream after the command at ``index`` and what observers are told; None when all is as the command wants it."""
    if stream is None:
        text = "stream does not exist" if command.partitions else "stream not found"
        return Refused(RefusalReason.NO_SUCH_STREAM, text)
    if not all(0 <= number < len(stream.partitions) for number in command.partitions):
        return Refused(RefusalReason.NO_SUCH_PARTITION, "partition does not exist")
    match command:
        case PausePartitions():
            return _paused(stream, command, index)
        case ResumePartitions():
            return _resumed(stream, command, index)
        case SetReadonly():
            return _with_readonly(stream, command, index)


def _paused(stream: StreamState, command: PausePartitions, index: int) -> tuple[StreamState, MetadataEvent] | None:
    numbers = _numbers(stream, command.partitions)
    resume_all = command.resume_all
    if command.leader_epochs:
        epochs = dict(zip(command.partitions, command.leader_epochs, strict=False))
        numbers = [number for number in numbers if stream.partitions[number].leader_epoch == epochs.get(number)]
        resume_all = stream.resume_all

    def pause(partition: PartitionState) -> PartitionState:
        times = partition.pause_times.again(command.timestamp_ns)
        return replace(partition, paused=True, partition_epoch=index, pause_times=times)

    running = [number for number in numbers if not stream.partitions[number].paused]
    if not running and (resume_all == stream.resume_all or not _any_paused(stream)):
        return None
    after = replace(_with(stream, running, pause), resume_all=resume_all)
    event = MetadataEvent(
        index, MetadataEventKind.PAUSED, stream.name, tuple(running or numbers), resume_all=resume_all
    )
    return after, event


def _resumed(stream: StreamState, command: ResumePartitions, index: int) -> tuple[StreamState, MetadataEvent] | None:
    asked = _numbers(stream, () if stream.resume_all else command.partitions)
    numbers = [number for number in asked if stream.partitions[number].paused]
    if not numbers:
        return None

    def resume(partition: PartitionState) -> PartitionState:
        times = partition.pause_times.again(command.timestamp_ns)
        return replace(partition, paused=False, leader_epoch=index, partition_epoch=index, pause_times=times)

    after = _with(stream, numbers, resume)
    after = replace(after, resume_all=after.resume_all and _any_paused(after))
    return after, MetadataEvent(index, MetadataEventKind.RESUMED, stream.name, tuple(numbers))


def _with_readonly(stream: StreamState, command: SetReadonly, index: int) -> tuple[StreamState, MetadataEvent] | None:
    numbers = [
        number
        for number in _numbers(stream, command.partitions)
        if stream.partitions[number].readonly != command.readonly
    ]
    if not numbers:
        return None

    def change(partition: PartitionState) -> PartitionState:
        times = partition.readonly_times.again(command.timestamp_ns)
        return replace(partition, readonly=command.readonly, readonly_times=times)

    kind = MetadataEventKind.READONLY_CHANGED
    event = MetadataEvent(index, kind, stream.name, tuple(numbers), readonly=command.readonly)
    return _with(stream, numbers, change), event


def _numbers(stream: StreamState, named: Sequence[int]) -> list[int]:
    """Those named, each once; none named is all."""
    return sorted(set(named)) if named else list(range(len(stream.partitions)))


def _any_paused(stream: StreamState) -> bool:
    return any(partition.paused for partition in stream.partitions)


def _with(
    stream: StreamState, numbers: Sequence[int], change: Callable[[PartitionState], PartitionState]
) -> StreamState:
    partitions = list(stream.partitions)
    for number in numbers:
        partitions[number] = change(partitions[number])
    return replace(stream, partitions=tuple(partitions))

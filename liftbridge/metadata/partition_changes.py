"""When a change of one partition is accepted, and what the partition is then."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from liftbridge.interfaces.events import MetadataEventKind
from liftbridge.metadata.commands import PartitionChange
from liftbridge.metadata.model import PartitionState, ServerState, ServerStatus


def changed(
    partition: PartitionState, change: PartitionChange, servers: Mapping[str, ServerState], index: int
) -> PartitionState | None:
    """The partition after the change at ``index``; None when it was computed from an older state, or breaks a rule:
    the ISR is a part of the replicas and never empty, the leader is in it, and whoever comes into the ISR or leads
    anew is live. A leader leads one set of replicas: another set begins a new leader epoch too."""
    if change.partition_epoch != partition.partition_epoch:
        return None
    leader = partition.leader if change.leader is None else change.leader
    replicas = change.replicas or partition.replicas
    isr = _new_isr(partition, change, leader, replicas)
    is_sound = (
        len(set(replicas)) == len(replicas)
        and len(isr) > 0
        and leader in ("", *isr)
        and all(_is_live(one, servers) for one in set(isr) - set(partition.isr))
        and (not change.leader or _is_live(change.leader, servers))
    )
    if not is_sound:
        return None
    return replace(
        partition,
        replicas=replicas,
        isr=isr,
        leader=leader,
        leader_epoch=partition.leader_epoch if change.leader is None and not change.replicas else index,
        partition_epoch=index,
    )


def _new_isr(
    partition: PartitionState, change: PartitionChange, leader: str, replicas: tuple[str, ...]
) -> tuple[str, ...]:
    """In the order of the replicas; empty when it can't be."""
    wanted = change.isr or partition.isr
    if change.unclean:
        wanted = (leader,)
    elif not set(change.isr) <= set(replicas):
        return ()
    return tuple(one for one in replicas if one in wanted)


def restarted(partition: PartitionState, server_id: str, *, unclean: bool, index: int) -> PartitionState:
    """The partition after a new start of a server: where it leads, a new leader epoch begins, because what it wrote
    last may not be what it holds now. After an unclean one it leaves every ISR in which there are others, and where it is
    in none, a request to add it that was computed from what it held before must not be accepted any more."""
    isr = tuple(one for one in partition.isr if one != server_id)
    if unclean and isr and server_id in partition.isr:
        leads = partition.leader == server_id
        return replace(
            partition,
            isr=isr,
            leader="" if leads else partition.leader,
            leader_epoch=index if leads else partition.leader_epoch,
            partition_epoch=index,
        )
    if partition.leader == server_id:
        return replace(partition, leader_epoch=index, partition_epoch=index)
    if unclean and server_id in partition.replicas and server_id not in partition.isr:
        return replace(partition, partition_epoch=index)
    return partition


def differences(
    before: Sequence[PartitionState], after: Sequence[PartitionState]
) -> Iterator[tuple[MetadataEventKind, list[int]]]:
    """What observers are told of, and the partitions that it happened to."""
    numbered = list(enumerate(zip(before, after, strict=True)))
    led = [number for number, (old, new) in numbered if old.leader_epoch != new.leader_epoch and new.leader]
    offline = [number for number, (old, new) in numbered if old.leader and not new.leader]
    in_sync = [number for number, (old, new) in numbered if old.isr != new.isr]
    for kind, numbers in [
        (MetadataEventKind.LEADER_ELECTED, led),
        (MetadataEventKind.PARTITION_OFFLINE, offline),
        (MetadataEventKind.ISR_CHANGED, in_sync),
    ]:
        if numbers:
            yield kind, numbers


def _is_live(server_id: str, servers: Mapping[str, ServerState]) -> bool:
    server = servers.get(server_id)
    return server is not None and server.status is ServerStatus.LIVE

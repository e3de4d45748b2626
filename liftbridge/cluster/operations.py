"""What an operator asks for: draining, removing, handing over. Carried out on the metadata leader.

Every operation may be asked for again, and then goes on where it is: so one that takes long is asked for until it is
done, and survives a change of the metadata leader.
"""

import logging
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Sequence

from liftbridge.clock import Clock
from liftbridge.interfaces.consensus import Consensus
from liftbridge.metadata.commands import (
    ChangePartitions,
    ChangeServer,
    Command,
    PartitionChange,
    ResumePartitions,
    encode_command,
)
from liftbridge.metadata.model import PartitionState, Refused, ServerStatus, StreamState
from liftbridge.metadata.placement import is_live
from liftbridge.metadata.state import MetadataState
from liftbridge.protocol.generated import internal_pb2 as internal

logger = logging.getLogger(__name__)

_BATCH = 100

#: Returns when the present leaders of the partitions are ready to be replaced, or had time enough.
Prepare = Callable[[Sequence[PartitionChange]], Awaitable[None]]


class Refusal(Exception):
    """It can't be done as things are; the text says why, and what would help."""


class Unfinished(Exception):
    """It goes on; ask again."""


class Operations:
    """For one term of leading."""

    def __init__(
        self, consensus: Consensus, state: MetadataState, prepare: Prepare, server_id: str, clock: Clock
    ) -> None:
        self._consensus = consensus
        self._state = state
        self._prepare = prepare
        self._server_id = server_id
        self._clock = clock

    # --- draining -----------------------------------------------------------------------------------------------------

    async def drain(self, server_id: str, timeout_s: float) -> str:
        """The server leads nothing and is in no ISR that has others, but for those of paused partitions; until it starts
        again."""
        self._require_server(server_id)
        await self._begin_draining(server_id, timeout_s)
        left = burden(self._state, server_id)
        if left:
            raise Unfinished(f"still to be handed over: {left} partitions and consumer groups")
        if server_id == self._server_id:
            await self._hand_over_metadata(timeout_s)
        alone = sum(one.isr == (server_id,) for stream in self._state.streams.values() for one in stream.partitions)
        return f"server {server_id} is drained" + (f"; in sync only there: {alone} partitions" if alone else "")

    async def _begin_draining(self, server_id: str, timeout_s: float) -> None:
        if self._state.servers[server_id].status is ServerStatus.LIVE:
            await self._propose(ChangeServer(server_id, ServerStatus.DRAINING), timeout_s)

    async def _hand_over_metadata(self, timeout_s: float) -> None:
        """To whoever can take it; without anybody, this server keeps it."""
        for voter in self._consensus.status().voters:
            if voter != self._server_id and is_live(self._state, voter):
                await self._consensus.transfer_leadership(voter, timeout_s=timeout_s)
                return

    # --- removing -----------------------------------------------------------------------------------------------------

    async def remove(self, server_id: str, timeout_s: float, *, accept_loss: bool) -> str:
        """The server's replicas go to others, then it leaves for good. Paused partitions that are in sync only there are
        resumed, because a paused one can't be copied."""
        status = self._consensus.status()
        is_member = server_id in (*status.voters, *status.learners)
        server = self._state.servers.get(server_id)
        if server is None and not is_member:
            raise Refusal(f"there is no server {server_id}")
        self._require_quorum_without(server_id)
        if server_id == self._server_id:
            await self._hand_over_metadata(timeout_s)
            raise Unfinished(f"{server_id} leads the metadata group and hands that over")
        if server is not None and server.status is not ServerStatus.GONE:
            await self._begin_draining(server_id, timeout_s)
            await self._move_replicas(server_id, timeout_s, accept_loss=accept_loss)
            await self._propose(ChangeServer(server_id, ServerStatus.GONE), timeout_s)
        if is_member:
            await self._consensus.remove_member(server_id, timeout_s=timeout_s)
        return f"server {server_id} is removed"

    def _require_quorum_without(self, server_id: str) -> None:
        voters = [one for one in self._consensus.status().voters if one != server_id]
        up = [one for one in voters if one == self._server_id or is_live(self._state, one)]
        if not voters:
            raise Refusal(f"{server_id} is the only server that keeps the metadata: let another one join first")
        if len(up) < len(voters) // 2 + 1:
            raise Refusal(
                f"without {server_id}, {len(up)} of {len(voters)} voters of the metadata group would be up, which is no "
                "majority; start the others first"
            )

    async def _move_replicas(self, server_id: str, timeout_s: float, *, accept_loss: bool) -> None:
        held = [
            (stream, number, partition)
            for stream in self._state.streams.values()
            for number, partition in enumerate(stream.partitions)
            if server_id in partition.replicas
        ]
        if not held:
            return
        loads = self._loads(server_id)
        changes = [change for one in held if (change := self._without(server_id, *one, loads, accept_loss=accept_loss))]
        if changes:
            await self._propose(ChangePartitions(tuple(changes[:_BATCH])), timeout_s)
        await self._resume_only_copies(server_id, held, timeout_s)
        raise Unfinished(f"still to be moved from {server_id}: {len(held)} partitions")

    async def _resume_only_copies(
        self, server_id: str, held: Sequence[tuple[StreamState, int, PartitionState]], timeout_s: float
    ) -> None:
        """As if somebody published to them, so that others can copy them. Readonly stays."""
        if not self._is_up(server_id):
            return
        numbers: defaultdict[str, list[int]] = defaultdict(list)
        for stream, number, partition in held:
            if partition.paused and partition.isr == (server_id,):
                numbers[stream.name].append(number)
        for name, alone in numbers.items():
            logger.info(
                "Stream %s: partitions %s are resumed: only server %s, which leaves, has them", name, alone, server_id
            )
            await self._propose(ResumePartitions(name, tuple(alone), self._clock.time_ns()), timeout_s)

    def _loads(self, leaving: str) -> Counter[str]:
        """Partitions on each server that can take more."""
        usable = [one for one in self._state.servers if one != leaving and is_live(self._state, one)]
        loads = Counter(dict.fromkeys(usable, 0))
        for stream in self._state.streams.values():
            for partition in stream.partitions:
                loads.update(one for one in partition.replicas if one in loads)
        return loads

    def _without(
        self,
        server_id: str,
        stream: StreamState,
        number: int,
        partition: PartitionState,
        loads: Counter[str],
        *,
        accept_loss: bool,
    ) -> PartitionChange | None:
        """The next step for one partition; None while there is something to wait for."""
        others = [one for one in loads if one not in partition.replicas]
        heir = min(others, key=lambda one: loads[one], default="")
        where = f"partition {number} of stream {stream.name}"
        staying = tuple(one for one in partition.replicas if one != server_id)
        epoch = partition.partition_epoch
        if partition.isr == (server_id,):
            if self._is_up(server_id):
                return self._copy(stream, number, partition, staying, heir, loads)
            if not accept_loss:
                raise Refusal(
                    f"{where} is in sync only on {server_id}, which is down: start it, or give up what only it has with "
                    "--accept-loss"
                )
            survivor = next((one for one in staying if is_live(self._state, one)), heir)
            if not survivor:
                raise Refusal(f"no server that is up could take {where}")
            replicas = staying if survivor in staying else (*staying, survivor)
            return PartitionChange(stream.stream_id, number, epoch, leader=survivor, replicas=replicas, unclean=True)
        if _is_held(partition, server_id) and (partition.leader == server_id or self._is_up(server_id)):
            return None  # the controller is about to hand it over
        isr = tuple(one for one in partition.isr if one != server_id)
        replicas = staying
        if heir and len(staying) < stream.replication_factor:
            loads[heir] += 1
            replicas = (*staying, heir)
        return PartitionChange(stream.stream_id, number, epoch, isr=isr, replicas=replicas)

    def _copy(
        self,
        stream: StreamState,
        number: int,
        partition: PartitionState,
        staying: tuple[str, ...],
        heir: str,
        loads: Counter[str],
    ) -> PartitionChange | None:
        """Gives the only copy another one to be; nothing to do while one is on its way."""
        if any(is_live(self._state, one) for one in staying):
            return None
        if not heir:
            raise Refusal(
                f"partition {number} of stream {stream.name} is only there, and no other server could take it"
            )
        loads[heir] += 1
        replicas = (*partition.replicas, heir)
        return PartitionChange(stream.stream_id, number, partition.partition_epoch, replicas=replicas)

    def _is_up(self, server_id: str) -> bool:
        server = self._state.servers.get(server_id)
        return server is not None and server.status in (ServerStatus.LIVE, ServerStatus.DRAINING)

    # --- handing over -------------------------------------------------------------------------------------------------

    async def transfer(self, request: internal.TransferLeader, timeout_s: float) -> str:
        """Hands over the lead of the metadata group, or of one partition."""
        if not request.stream:
            await self._consensus.transfer_leadership(request.server_id, timeout_s=timeout_s)
            return f"server {request.server_id} leads the metadata group"
        self._require_server(request.server_id)
        stream = self._state.streams.get(request.stream)
        if stream is None or request.partition >= len(stream.partitions):
            raise Refusal(f"there is no partition {request.partition} of a stream {request.stream}")
        partition = stream.partitions[request.partition]
        where = f"partition {request.partition} of stream {request.stream}"
        if partition.leader == request.server_id:
            return f"server {request.server_id} leads {where} already"
        self._check_new_leader(partition, where, request)
        change = PartitionChange(
            stream.stream_id,
            request.partition,
            partition.partition_epoch,
            leader=request.server_id,
            unclean=request.server_id not in partition.isr,
        )
        if not change.unclean and self._is_up(partition.leader):
            await self._prepare([change])
        await self._propose(ChangePartitions((change,)), timeout_s)
        return f"server {request.server_id} leads {where}"

    def _check_new_leader(self, partition: PartitionState, where: str, request: internal.TransferLeader) -> None:
        server_id = request.server_id
        if server_id not in partition.replicas:
            raise Refusal(f"{server_id} holds no replica of {where}; {', '.join(partition.replicas)} do")
        if not is_live(self._state, server_id):
            raise Refusal(f"{server_id} is {self._state.servers[server_id].status.name.lower()}")
        if server_id in partition.isr:
            return
        if not request.accept_loss:
            raise Refusal(
                f"{server_id} is not in sync with {where} ({', '.join(partition.isr)} are): what it lacks would be lost. "
                "--accept-loss does it"
            )

    # ------------------------------------------------------------------------------------------------------------------

    def _require_server(self, server_id: str) -> None:
        server = self._state.servers.get(server_id)
        if server is None or server.status is ServerStatus.GONE:
            raise Refusal(f"there is no server {server_id}")

    async def _propose(self, command: Command, timeout_s: float) -> None:
        outcome = await self._consensus.propose(encode_command(command), timeout_s=timeout_s)
        if isinstance(outcome, Refused):
            raise Refusal(outcome.message)
        accepted = getattr(outcome, "accepted", ())
        if accepted and not all(accepted):
            raise Unfinished("something changed meanwhile")


def burden(state: MetadataState, server_id: str) -> int:
    """Partitions and consumer groups that a draining server still has to hand over, and can: others in the ISR, or any
    others, are live."""
    partitions = sum(
        _is_held(partition, server_id) and any(is_live(state, one) for one in partition.isr if one != server_id)
        for stream in state.streams.values()
        for partition in stream.partitions
    )
    if not any(is_live(state, one) for one in state.servers if one != server_id):
        return partitions
    return partitions + sum(group.coordinator == server_id for group in state.groups.values())


def _is_held(partition: PartitionState, server_id: str) -> bool:
    """Whether a draining server is to be taken out of the ISR, or its lead away: a follower of a paused partition stays."""
    return partition.leader == server_id or (server_id in partition.isr and not partition.paused)

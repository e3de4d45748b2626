"""Which member of a consumer group gets which partitions: a function of the group, without IO.

What comes out is *balanced*: no partition could go from a member to another one that consumes its stream, directly or by
way of others, so that their numbers of partitions get closer. Members that consume the same streams have numbers that
differ by one at most. And it is *sticky*: what somebody holds stays, unless balance needs it elsewhere. When one of n
members leaves, only its partitions move; when one joins, only those that it gets.

Every server computes this while it applies the metadata log, also when it replays it. So another algorithm would need
another command: what this one answers may never change.
"""

import itertools
from bisect import insort
from collections.abc import Iterator, Mapping

#: The partitions of each stream, ascending.
Partitions = Mapping[str, tuple[int, ...]]


def assign(
    consumed: Mapping[str, tuple[str, ...]], partition_counts: Mapping[str, int], held: Mapping[str, Partitions]
) -> dict[str, Partitions]:
    """The partitions of each member, given the streams that each consumes, the number of partitions of each of those
    streams, and what members held before."""
    sharing = _Sharing(consumed)
    sharing.keep(held, partition_counts)
    sharing.hand_out(partition_counts)
    sharing.even_out()
    return sharing.result()


class _Sharing:
    """An assignment in the making."""

    def __init__(self, consumed: Mapping[str, tuple[str, ...]]) -> None:
        self._members = sorted(consumed)
        self._held: dict[str, dict[str, list[int]]] = {
            member: {stream: [] for stream in sorted(consumed[member])} for member in self._members
        }
        self._loads = dict.fromkeys(self._members, 0)
        self._consumers: dict[str, list[str]] = {}
        for member in self._members:
            for stream in self._held[member]:
                self._consumers.setdefault(stream, []).append(member)

    def keep(self, held: Mapping[str, Partitions], partition_counts: Mapping[str, int]) -> None:
        """Everybody keeps what is still there and still theirs to consume."""
        for member in self._members:
            for stream, partitions in held.get(member, {}).items():
                if stream in self._held[member]:
                    kept = [number for number in partitions if number < partition_counts[stream]]
                    self._held[member][stream] = kept
                    self._loads[member] += len(kept)

    def hand_out(self, partition_counts: Mapping[str, int]) -> None:
        """Each partition that nobody has goes to who has least."""
        for stream in sorted(self._consumers):
            consumers = self._consumers[stream]
            taken = {number for member in consumers for number in self._held[member][stream]}
            for number in range(partition_counts[stream]):
                if number not in taken:
                    self._give(
                        min(consumers, key=lambda one: (self._loads[one], self._share(one, stream))), stream, number
                    )

    def even_out(self) -> None:
        """Moves partitions, one at a time, from who has most to who has at least two fewer."""
        while path := next(self._improvements(), None):
            for giver, taker in itertools.pairwise(path):
                self._move(giver, taker)

    def result(self) -> dict[str, Partitions]:
        return {
            member: {stream: tuple(numbers) for stream, numbers in streams.items() if numbers}
            for member, streams in self._held.items()
        }

    # ------------------------------------------------------------------------------------------------------------------

    def _share(self, member: str, stream: str) -> int:
        return len(self._held[member][stream])

    def _give(self, member: str, stream: str, number: int) -> None:
        insort(self._held[member][stream], number)
        self._loads[member] += 1

    def _move(self, giver: str, taker: str) -> None:
        """Of the stream that they share least evenly, so that the load of one stream is spread too."""
        shared = [stream for stream, numbers in self._held[giver].items() if numbers and stream in self._held[taker]]
        stream = max(shared, key=lambda one: (self._share(giver, one) - self._share(taker, one), one))
        self._loads[giver] -= 1
        self._give(taker, stream, self._held[giver][stream].pop())

    def _improvements(self) -> Iterator[list[str]]:
        """Shortest ways from members that have much to members that have at least two fewer, along which each can give
        the next one a partition."""
        lowest = min(self._loads.values(), default=0)
        hopeless: set[str] = set()  # whoever has no more, and can give to the same members, has no way either
        for giver in sorted(self._members, key=lambda one: (-self._loads[one], one)):
            if self._loads[giver] - lowest < 2:
                return
            if giver not in hopeless:
                came_from, target = self._search(giver)
                if target:
                    yield _way(came_from, target)
                hopeless.update(came_from)

    def _search(self, giver: str) -> tuple[dict[str, str], str]:
        """Who can be reached from the giver, by way of whom, and the nearest who has at least two fewer, or ""."""
        came_from = {giver: ""}
        seen: set[str] = set()
        nearest = [giver]
        while nearest:
            following: list[str] = []
            for member in nearest:
                for stream, numbers in self._held[member].items():
                    if numbers and stream not in seen:
                        seen.add(stream)
                        reached = [one for one in self._consumers[stream] if one not in came_from]
                        came_from.update(dict.fromkeys(reached, member))
                        following += reached
            target = min(following, key=lambda one: (self._loads[one], one), default=giver)
            if self._loads[giver] - self._loads[target] >= 2:
                return came_from, target
            nearest = following
        return came_from, ""


def _way(came_from: Mapping[str, str], target: str) -> list[str]:
    """From where the search began to the target."""
    way = [target]
    while came_from[way[-1]]:
        way.append(came_from[way[-1]])
    return way[::-1]

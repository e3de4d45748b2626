"""Who waits for what: proposals for their entry, reads for their index, others for any change."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from liftbridge.errors import NotLeader, ProposalDropped, ProposalTimeout

Future = asyncio.Future[object]


@dataclass(frozen=True, slots=True)
class _Proposal:
    term: int
    future: Future


class Proposals:
    """Proposals by the index of their entry. What stands there when it is committed decides on the outcome, whoever
    leads by then."""

    def __init__(self) -> None:
        self._pending: dict[int, list[_Proposal]] = {}

    def add(self, index: int, term: int) -> Future:
        """The same index can be waited for in several terms; at most one of them will be right."""
        future: Future = asyncio.get_running_loop().create_future()
        self._pending.setdefault(index, []).append(_Proposal(term, future))
        return future

    def applied(self, index: int, term: int, result: object) -> None:
        """The entry at ``index`` was applied."""
        for proposal in self._pending.pop(index, ()):
            if proposal.term != term:
                _fail(proposal.future, ProposalDropped(f"another leader's entry was committed at index {index}"))
            elif not proposal.future.done():
                proposal.future.set_result(result)

    def skipped_to(self, index: int) -> None:
        """A snapshot took the place of everything up to ``index``: what became of it can't be told."""
        for pending_index in [one for one in self._pending if one <= index]:
            for proposal in self._pending.pop(pending_index):
                _fail(proposal.future, ProposalTimeout("the outcome is hidden in a leader's snapshot"))

    def fail(self, message: str) -> None:
        for proposals in self._pending.values():
            for proposal in proposals:
                _fail(proposal.future, ProposalTimeout(message))
        self._pending.clear()


@dataclass(slots=True)
class _Read:
    term: int
    future: Future
    index: int | None = None


class Reads:
    """Reads by token; answered with the applied index when theirs is confirmed and applied."""

    def __init__(self) -> None:
        self._pending: dict[int, _Read] = {}
        self._next_token = 0

    def add(self, term: int) -> tuple[int, Future]:
        self._next_token += 1
        future: Future = asyncio.get_running_loop().create_future()
        self._pending[self._next_token] = _Read(term, future)
        return self._next_token, future

    def confirmed(self, token: int, index: int) -> None:
        read = self._pending.get(token)
        if read is not None:
            read.index = index

    def settle(self, *, applied: int, leading_term: int | None, leader: str) -> None:
        """Ends what can end: with the applied index, or because the term in which it was asked is over."""
        for token, read in list(self._pending.items()):
            if read.index is not None and read.index <= applied:
                if not read.future.done():
                    read.future.set_result(applied)
            elif read.term != leading_term:
                _fail(read.future, NotLeader(leader))
            elif not read.future.done():
                continue
            del self._pending[token]

    def fail(self, message: str) -> None:
        for read in self._pending.values():
            _fail(read.future, ProposalTimeout(message))
        self._pending.clear()


class Changes:
    """Wakes whoever waits for a condition, each time something may have changed."""

    def __init__(self) -> None:
        self._waiting: list[Future] = []

    async def until(self, condition: Callable[[], bool], deadline_s: float) -> bool:
        """Returns True as soon as the condition holds, or False at the deadline (loop time)."""
        try:
            async with asyncio.timeout_at(deadline_s):
                while not condition():
                    future: Future = asyncio.get_running_loop().create_future()
                    self._waiting.append(future)
                    await future
        except TimeoutError:
            return False
        return True

    def notify(self) -> None:
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)


def _fail(future: Future, error: Exception) -> None:
    if not future.done():
        future.set_exception(error)

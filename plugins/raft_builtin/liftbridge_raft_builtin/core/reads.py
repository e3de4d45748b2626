"""Reads that must not be stale: each waits for a round of heartbeats that began after it was asked."""

from collections import deque


class PendingReads:
    """``round`` counts the rounds; every request of the leader carries it, and replies bring it back."""

    def __init__(self) -> None:
        self.round = 0
        self._asked: list[int] = []
        self._waiting: deque[tuple[int, int, int]] = deque()

    def ask(self, token: int) -> None:
        self._asked.append(token)

    def begin_round(self, commit: int, *, may_read: bool) -> bool:
        """Starts one round for everything asked so far; False when there is nothing to ask, or not yet."""
        if not self._asked or not may_read:
            return False
        self.round += 1
        self._waiting.extend((self.round, token, commit) for token in self._asked)
        self._asked.clear()
        return True

    def confirmed(self, round_: int) -> tuple[tuple[int, int], ...]:
        """Takes out the reads (token, index) of all rounds up to that one."""
        found = []
        while self._waiting and self._waiting[0][0] <= round_:
            _round, token, index = self._waiting.popleft()
            found.append((token, index))
        return tuple(found)

"""What a leader keeps of one lane of another server, so that nothing is taken twice and answers can be given again."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from liftbridge.protocol.publish_requests import RequestParser

#: Of a lane whose oldest chunk has no answer yet, so much of the answers to later ones is kept.
_KEPT_BYTES = 4 * 1024 * 1024


@dataclass(slots=True)
class ForwardedLane:
    """The latest attempt of a lane. ``next_sequence`` is 0 when this server didn't lead when it first heard of the attempt:
    it takes nothing of it, and doesn't know what it took in a former life. ``is_open``: more can be taken. ``told`` is the
    gap that the sender knows of. ``answers``, in ascending sequences, are those to chunks that the sender still waits for;
    None is one that is still to come."""

    parser: RequestParser = field(default_factory=RequestParser)
    attempt: int = 0
    next_sequence: int = 0
    lowest: int = 0
    is_open: bool = False
    told: int = 0
    used_ns: int = 0
    answers: dict[int, bytes | None] = field(default_factory=dict)
    kept_bytes: int = 0

    @property
    def is_strange(self) -> bool:
        """Whether nothing is known of the attempt."""
        return self.next_sequence == 0

    def begin(self, attempt: int, lowest: int, *, leads: bool) -> None:
        """A newer attempt. The sender waits for nothing of those before. In an epoch that this server leads, only it can
        have taken something of the attempt, and it didn't."""
        self.attempt, self.lowest, self.is_open = attempt, lowest, leads
        self.next_sequence = lowest if leads else 0
        self.told = self.kept_bytes = 0
        self.answers.clear()

    def confirm(self, lowest: int) -> None:
        """The sender waits for nothing before that: a chunk that never came is left out."""
        self.lowest = lowest
        while self.answers:
            oldest = next(iter(self.answers))
            if oldest >= lowest:
                break
            self._drop(oldest)
        if not self.is_strange and self.next_sequence < lowest:
            self.next_sequence = lowest

    def take(self, sequence: int) -> None:
        """Its answer is to come."""
        self.next_sequence = sequence + 1
        self.answers[sequence] = None

    def keep(self, attempt: int, sequence: int, answer: bytes) -> None:
        """In case that it is lost. No more than a lane's requests can bring about, if answers come in order."""
        if attempt == self.attempt and sequence in self.answers:
            self.answers[sequence] = answer
            self.kept_bytes += len(answer)
            while self.kept_bytes > _KEPT_BYTES:
                self._drop(next(one for one, kept in self.answers.items() if kept is not None))

    def forget_answers(self) -> None:
        """The sender has given up long ago, or has them."""
        for sequence in [one for one, kept in self.answers.items() if kept is not None]:
            self._drop(sequence)

    @property
    def has_answers_to_come(self) -> bool:
        return None in self.answers.values()

    def awaited(self, ranges: tuple[tuple[int, int], ...]) -> Iterator[int]:
        """The sequences in those ranges that were taken and are still waited for."""
        for first, end in ranges:
            yield from range(max(first, self.lowest), min(end, self.next_sequence))

    def _drop(self, sequence: int) -> None:
        self.kept_bytes -= len(self.answers.pop(sequence) or b"")

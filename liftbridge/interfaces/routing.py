"""The seam of subject routing: which subject a partition listens on, and which partitions a subject reaches.

Pure functions of their arguments: no IO, no state, callable from any thread.
"""

from abc import ABC, abstractmethod


class SubjectRouter(ABC):
    """Turns streams and partitions into subjects and back."""

    @abstractmethod
    def validate(self, subject: str) -> str | None:
        """None for a subject that a stream may attach to, else what is wrong with it, as a sentence for a person."""

    @abstractmethod
    def partition_subject(self, subject: str, partition: int) -> str:
        """The subject that a partition of a stream on ``subject`` listens on."""

    @abstractmethod
    def is_literal(self, subject: str) -> bool:
        """Whether ``subject`` has no wildcards, so that it reaches only itself."""

    @abstractmethod
    def matches(self, pattern: str, subject: str) -> bool:
        """Whether a listener on ``pattern`` hears what is published on ``subject``."""

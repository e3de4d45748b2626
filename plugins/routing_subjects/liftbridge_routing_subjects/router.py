"""The rules of NATS subjects, and the original's names of partition subjects."""

from liftbridge.interfaces.routing import SubjectRouter


class NatsSubjectRouter(SubjectRouter):
    """Partition 0 listens on the stream's subject, partition n on ``<subject>.n``."""

    def validate(self, subject: str) -> str | None:
        tokens = subject.split(".")
        if any(character.isspace() or not character.isprintable() for character in subject):
            return f"{subject!r} contains white space or control characters"
        if "" in tokens:
            return f"{subject!r} has an empty part between dots"
        if ">" in tokens[:-1]:
            return f"{subject!r} has a > that is not at the end"
        return None

    def partition_subject(self, subject: str, partition: int) -> str:
        return f"{subject}.{partition}" if partition else subject

    def is_literal(self, subject: str) -> bool:
        if "*" not in subject and ">" not in subject:
            return True
        tokens = subject.split(".")
        return "*" not in tokens and ">" not in tokens

    def matches(self, pattern: str, subject: str) -> bool:
        if pattern == subject:
            return True
        if "*" not in pattern and ">" not in pattern:
            return False
        wanted, found = pattern.split("."), subject.split(".")
        for place, token in enumerate(wanted):
            if token == ">":
                return place < len(found)
            if place >= len(found) or token not in ("*", found[place]):
                return False
        return len(wanted) == len(found)

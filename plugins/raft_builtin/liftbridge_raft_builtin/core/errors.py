"""What must never happen, and ends this member if it does."""

from liftbridge.errors import ConsensusError


class SafetyViolated(ConsensusError):
    """Members disagree on what Raft promises, because one lost its disk, shares its ID, or was set up with others.

    Going on could spread the damage, so the member that notices stops taking part.
    """

    retriable = False

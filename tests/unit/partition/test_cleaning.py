"""What the limits of a stream mean while records wait to be committed."""

from liftbridge.interfaces.log import LogId, LogSettings
from liftbridge.partition.assignment import RetentionSettings
from liftbridge.partition.cleaner import limits_for
from liftbridge.partition.partition import Partition, PartitionKey
from liftbridge.testing.batches import make_batch
from liftbridge.testing.memory_log import MemoryLogStorage


def partition_of(records: int, committed: int) -> Partition:
    log = MemoryLogStorage().open(LogId(1, 0), LogSettings(segment_max_bytes=1))
    for offset in range(records):
        log.append([make_batch(offset, 1)])
    partition = Partition(PartitionKey("s", 0, 1), log, "s")
    partition.advance_high_watermark(committed)
    return partition


def cleaned(partition: Partition, *, max_bytes: int = 0, max_messages: int = 0) -> int:
    limits = limits_for(partition, RetentionSettings(max_bytes, max_messages, 0, 1))
    return partition.log.apply_retention(limits, 0)


def test_what_waits_to_be_committed_pushes_nothing_out() -> None:
    """A leader that was cut off would remove what all others hold, and be empty once it has to drop what it alone took."""
    assert cleaned(partition_of(100, committed=40), max_messages=30) == 10
    one = make_batch(0, 1).data
    assert cleaned(partition_of(100, committed=40), max_bytes=30 * len(one)) in (10, 11)


def test_what_is_committed_is_limited_as_ever() -> None:
    assert cleaned(partition_of(100, committed=100), max_messages=30) == 70
    assert cleaned(partition_of(100, committed=100)) == 0

"""What a stream may be: each partition must have a subject that it can listen on."""

import pytest

from liftbridge.broker.validation import MAX_PARTITIONS, partition_count
from liftbridge.errors import InvalidRequest
from liftbridge.protocol.generated import api_pb2 as api
from liftbridge_routing_subjects.router import NatsSubjectRouter

ROUTER = NatsSubjectRouter()


def count(subject: str, partitions: int) -> int:
    return partition_count(api.CreateStreamRequest(subject=subject, partitions=partitions), ROUTER)


def test_no_partitions_asked_for_means_one() -> None:
    assert count("a", 0) == 1


@pytest.mark.parametrize("partitions", [-1, MAX_PARTITIONS + 1])
def test_absurd_numbers_of_partitions_are_refused(partitions: int) -> None:
    with pytest.raises(InvalidRequest, match=f"Invalid partitions {partitions}"):
        count("a", partitions)


def test_a_wildcard_for_the_rest_allows_one_partition_only() -> None:
    assert count("a.>", 1) == 1
    assert count("a.*", 3) == 3
    with pytest.raises(InvalidRequest, match=r"partition 1 can't have a subject: 'a\.>\.1'"):
        count("a.>", 2)

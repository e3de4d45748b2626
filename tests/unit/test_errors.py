"""Errors: what a client hears of each, and which may be tried again."""

import inspect

import pytest

from liftbridge import errors
from liftbridge.errors import LiftbridgeError, NotLeader, RequestError, Status

_ALL = [one for one in vars(errors).values() if inspect.isclass(one) and issubclass(one, LiftbridgeError)]
_REQUEST = [one for one in _ALL if one.__base__ is RequestError]


@pytest.mark.parametrize("error", _ALL, ids=lambda error: error.__name__)
def test_error_has_a_status_that_is_a_failure(error: type[LiftbridgeError]) -> None:
    assert isinstance(error.status, Status)
    assert error.status is not Status.OK


@pytest.mark.parametrize("error", _REQUEST, ids=lambda error: error.__name__)
def test_request_error_is_named_in_the_tree_beside_its_status(error: type[LiftbridgeError]) -> None:
    (line,) = [line for line in str(errors.__doc__).splitlines() if f" {error.__name__} " in line]
    assert line.split(error.__name__)[1].split()[0].rstrip(",") == error.status.name


def test_request_errors_have_a_status_each() -> None:
    assert len({error.status for error in _REQUEST}) == len(_REQUEST)


def test_what_may_be_tried_again() -> None:
    retriable = {error.__name__ for error in _ALL if error.retriable}
    assert retriable == {
        "DiskFull", "ConsensusError", "NotLeader", "ProposalDropped", "TransportError", "TransportClosed",
        "NoResponders", "RequestTimeout", "Unavailable",
    }  # fmt: skip


def test_not_leader_says_who_is() -> None:
    assert NotLeader("b").leader == "b"
    assert "b is" in str(NotLeader("b"))
    assert "no known" in str(NotLeader())

"""Prometheus' text format, in pieces: rendering all partitions of a large server at once would hold the event loop."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from prometheus_client import generate_latest
from prometheus_client.core import Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from liftbridge.interfaces.figures import GroupPosition, ReplicaFigures
from liftbridge_metrics_prometheus.metrics import PARTITION_METRICS, group_positions_family

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
#: A third of a millisecond's work, about.
_PIECE_ITEMS = 50
_T = TypeVar("_T")


class _Families(Collector):
    """Families that are there already."""

    def __init__(self, *families: Metric) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def render(family: Metric) -> bytes:
    """One metric, whole."""
    return generate_latest(_Families(family))


def partition_pieces(replicas: Sequence[ReplicaFigures]) -> Iterator[bytes]:
    """Every metric of these partitions: all that is yielded, joined, is the text."""
    for metric in PARTITION_METRICS:
        yield from _pieces(metric.family, replicas)


def group_pieces(positions: Sequence[GroupPosition]) -> Iterator[bytes]:
    """Where these groups stand, in the same way."""
    return _pieces(group_positions_family, positions)


def _pieces(family_of: Callable[[Sequence[_T]], Metric], items: Sequence[_T]) -> Iterator[bytes]:
    """The library writes two lines above each family, and they must stand above the first piece only."""
    for start in range(0, max(1, len(items)), _PIECE_ITEMS):
        text = render(family_of(items[start : start + _PIECE_ITEMS]))
        yield text.split(b"\n", 2)[2] if start else text

"""What is to be seen: read back with the library's own parser, and looked at as Prometheus' own tool does."""

import re
import shutil
import subprocess
from dataclasses import replace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from liftbridge.interfaces.events import MetadataEventKind
from liftbridge.interfaces.figures import (
    ClusterFigures,
    GroupFigures,
    GroupPosition,
    LeaderFigures,
    LogFigures,
    ReplicaFigures,
    ReplicaProblem,
    ReplicaRole,
)
from liftbridge.testing.scripted_broker import ALONE
from liftbridge_metrics_prometheus.exposition import group_pieces, partition_pieces, render
from liftbridge_metrics_prometheus.metrics import (
    PARTITION_METRICS,
    SERVER_METRICS,
    Disk,
    Identity,
    PartitionMetric,
    ServerMetric,
    server_families,
)

LEADER = ReplicaFigures(
    "orders",
    3,
    ReplicaRole.LEADER,
    subscriptions=2,
    log=LogFigures(start_offset=10, end_offset=25, high_watermark=20, size_bytes=4096, lost_messages=1),
    leader=LeaderFigures(replicas=3, in_sync=2, min_in_sync=2, lag_messages=5, dropped_messages=7),
    refused_messages={"too few replicas": 4, "readonly": 6},
)
FOLLOWER = ReplicaFigures("orders", 4, ReplicaRole.FOLLOWER, log=LogFigures(0, 5, 4, 100), refused_messages={})
SERVER = replace(
    ALONE,
    metadata_leader="",
    is_metadata_leader=False,
    term=4,
    cluster=ClusterFigures({"live": 2, "down": 1, "draining": 0}, 5, 9, 1, 2),
    groups=(GroupFigures("billing", 3),),
    events=dict.fromkeys(MetadataEventKind, 0) | {MetadataEventKind.LEADER_ELECTED: 8},
)
IDENTITY = Identity("a", "prod", "1.2.3")

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def text_of(*replicas: ReplicaFigures) -> str:
    return b"".join(partition_pieces(replicas)).decode()


def server_text(**more: object) -> str:
    options = {"serving": True, "disk": Disk(1000, 400)} | more
    return b"".join(render(family) for family in server_families(SERVER, IDENTITY, **options)).decode()  # type: ignore[arg-type]


def samples(text: str) -> Samples:
    parsed: Samples = {}
    for family in text_string_to_metric_families(text):
        for one in family.samples:
            assert (one.name, frozenset(one.labels.items())) not in parsed, one
            parsed[one.name, frozenset(one.labels.items())] = one.value
    return parsed


def of_partition(text: str, partition: int) -> dict[str, float]:
    """Without what has one more label."""
    place = frozenset({("stream", "orders"), ("partition", str(partition))})
    return {
        name.removeprefix("liftbridge_partition_"): value
        for (name, labels), value in samples(text).items()
        if labels == place
    }


def labelled(text: str, name: str, label: str) -> dict[str, float]:
    return {dict(labels)[label]: value for (one, labels), value in samples(text).items() if one == name}


# --- partitions -------------------------------------------------------------------------------------------------------


def test_a_leader_shows_all_that_it_knows() -> None:
    assert of_partition(text_of(LEADER), 3) == {
        "is_leader": 1,
        "start_offset": 10,
        "end_offset": 25,
        "high_watermark": 20,
        "size_bytes": 4096,
        "subscriptions": 2,
        "replicas": 3,
        "in_sync_replicas": 2,
        "min_in_sync_replicas": 2,
        "follower_lag_messages": 5,
        "dropped_messages_total": 7,
        "lost_messages_total": 1,
    }


def test_a_follower_shows_what_it_holds() -> None:
    assert of_partition(text_of(FOLLOWER), 4) == {
        "is_leader": 0,
        "start_offset": 0,
        "end_offset": 5,
        "high_watermark": 4,
        "size_bytes": 100,
        "subscriptions": 0,
        "lost_messages_total": 0,
    }


@pytest.mark.parametrize("role", [ReplicaRole.PAUSED, ReplicaRole.NONE])
def test_a_closed_log_shows_nothing_of_what_nobody_knows(role: ReplicaRole) -> None:
    assert of_partition(text_of(ReplicaFigures("orders", 1, role)), 1) == {"is_leader": 0, "subscriptions": 0}


def test_a_lag_that_is_not_known_is_not_shown_as_none() -> None:
    assert LEADER.leader is not None
    unknown = replace(LEADER, leader=replace(LEADER.leader, lag_messages=None))
    assert "follower_lag_messages" not in of_partition(text_of(unknown), 3)


def test_refusals_are_by_reason_and_those_to_watch_are_there_before_the_first() -> None:
    name = "liftbridge_partition_refused_messages_total"
    assert labelled(text_of(LEADER), name, "reason") == {"storage": 0, "too_few_replicas": 4, "readonly": 6}
    assert labelled(text_of(FOLLOWER), name, "reason") == {}


@pytest.mark.parametrize(
    ("problem", "shown"), [(ReplicaProblem.DAMAGED, "damaged"), (ReplicaProblem.CANNOT_STORE, "cannot_store")]
)
def test_a_problem_is_there_while_there_is_one(problem: ReplicaProblem, shown: str) -> None:
    name = "liftbridge_partition_problem"
    assert labelled(text_of(replace(LEADER, problem=problem)), name, "problem") == {shown: 1}
    assert labelled(text_of(LEADER), name, "problem") == {}


def test_names_of_streams_are_escaped() -> None:
    nasty = 'a "quoted"\nname\\ and ümlaut'
    shown = samples(text_of(replace(LEADER, stream=nasty)))
    assert {dict(labels)["stream"] for _, labels in shown} == {nasty}


def test_pieces_of_many_partitions_are_together_what_one_would_be() -> None:
    many = [replace(LEADER, partition=number) for number in range(1001)]
    pieces = list(partition_pieces(many))
    assert len(pieces) > len(PARTITION_METRICS)
    text = b"".join(pieces).decode()
    assert len(samples(text)) == 1001 * len(samples(text_of(LEADER)))
    heads = re.findall(r"^# (?:HELP|TYPE) \S+", text, re.MULTILINE)
    assert len(heads) == len(set(heads)) == 2 * len(PARTITION_METRICS)


def test_no_partitions_is_a_text_too() -> None:
    assert samples(text_of()) == {}


# --- the server -------------------------------------------------------------------------------------------------------


def test_a_server_shows_how_it_stands() -> None:
    plain = {name: value for (name, labels), value in samples(server_text()).items() if not labels}
    assert plain == {
        "liftbridge_server_serving": 1,
        "liftbridge_transport_connected": 1,
        "liftbridge_server_holds_lease": 1,
        "liftbridge_metadata_leader_known": 0,
        "liftbridge_metadata_is_leader": 0,
        "liftbridge_metadata_term": 4,
        "liftbridge_metadata_commit_index": 1,
        "liftbridge_metadata_applied_index": 1,
        "liftbridge_cluster_streams": 5,
        "liftbridge_cluster_partitions": 9,
        "liftbridge_cluster_offline_partitions": 1,
        "liftbridge_cluster_under_replicated_partitions": 2,
        "liftbridge_data_dir_size_bytes": 1000,
        "liftbridge_data_dir_free_bytes": 400,
    }


def test_what_has_labels_is_by_them() -> None:
    text = server_text()
    assert labelled(text, "liftbridge_cluster_servers", "status") == {"live": 2, "down": 1, "draining": 0}
    assert labelled(text, "liftbridge_group_members", "group") == {"billing": 3}
    events = labelled(text, "liftbridge_metadata_events_total", "event")
    assert events["leader_elected"] == 8
    assert len(events) == len(MetadataEventKind)
    (info,) = (dict(labels) for name, labels in samples(text) if name == "liftbridge_server_info")
    assert info == {"server_id": "a", "namespace": "prod", "version": "1.2.3"}


def test_without_an_answer_of_the_disk_nothing_is_said_of_it() -> None:
    assert "data_dir" not in server_text(disk=None)


# --- groups -----------------------------------------------------------------------------------------------------------


def test_groups_show_where_they_stand_in_each_partition() -> None:
    many = [GroupPosition("billing", "orders", number, number * 10) for number in range(120)]
    shown = samples(b"".join(group_pieces(many)).decode())
    assert len(shown) == 120
    labels = frozenset({("group", "billing"), ("stream", "orders"), ("partition", "7")})
    assert shown["liftbridge_group_next_offset", labels] == 70
    assert samples(b"".join(group_pieces([])).decode()) == {}


# --- as Prometheus wants them ------------------------------------------------------------------------------------------


def test_labels_are_only_what_operators_make_and_words_from_lists() -> None:
    shown = {key for _, labels in samples(text_of(LEADER) + server_text()) for key, _ in labels}
    allowed = {"stream", "partition", "group", "problem", "reason", "event", "status"}
    assert shown - {"server_id", "namespace", "version"} <= allowed


@pytest.mark.parametrize("metric", [*PARTITION_METRICS, *SERVER_METRICS], ids=lambda one: one.name)
def test_names_have_the_prefix_and_meanings_are_sentences(metric: PartitionMetric | ServerMetric) -> None:
    assert re.fullmatch(r"liftbridge_[a-z]+(_[a-z]+)+", metric.name)
    assert re.fullmatch(r"(1 |[A-Z]).*\.", metric.meaning)


def test_promtool_finds_nothing_wrong() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("there is no promtool in the PATH; it comes with Prometheus")
    problem = replace(LEADER, partition=5, problem=ReplicaProblem.DAMAGED)
    text = text_of(LEADER, FOLLOWER, problem) + server_text()
    done = subprocess.run(
        [promtool, "check", "metrics"], input=text, text=True, capture_output=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")

"""docs/how-to/monitor.md says what there is, and nothing that there isn't."""

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from liftbridge.config import load
from liftbridge.interfaces.events import MetadataEventKind
from liftbridge.interfaces.figures import GroupFigures, LeaderFigures, LogFigures, ReplicaFigures
from liftbridge.interfaces.figures import GroupPosition as Position
from liftbridge.interfaces.figures import ReplicaProblem as Problem
from liftbridge.interfaces.figures import ReplicaRole as Role
from liftbridge.plugin_manager import PluginManager
from liftbridge.testing.scripted_broker import ALONE
from liftbridge_metrics_prometheus.exposition import group_pieces, partition_pieces, render
from liftbridge_metrics_prometheus.metrics import PARTITION_METRICS, SERVER_METRICS, Disk, Identity, server_families

_PAGE = (Path(__file__).parents[3] / "docs" / "how-to" / "monitor.md").read_text()
_ROW = re.compile(r"^\| `(liftbridge_\w+)` \| (.*?) \| (.*?) \|$", re.MULTILINE)


def _labels() -> dict[str, set[str]]:
    """Every metric, and the labels it has where there is everything to see."""
    server = replace(ALONE, groups=(GroupFigures("g", 1),), events=dict.fromkeys(MetadataEventKind, 0))
    leader = LeaderFigures(3, 3, 2, lag_messages=0)
    replica = ReplicaFigures("s", 0, Role.LEADER, Problem.DAMAGED, log=LogFigures(0, 0, 0, 0), leader=leader)
    families = server_families(server, Identity("a", "n", "1"), serving=True, disk=Disk(2, 1))
    pieces = [*map(render, families), *partition_pieces([replica]), *group_pieces([Position("g", "s", 0, 1)])]
    parsed = text_string_to_metric_families(b"".join(pieces).decode())
    return {one.name: set(one.labels) for family in parsed for one in family.samples}


def _blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", _PAGE, re.DOTALL)


def _rules() -> list[dict[str, Any]]:
    (rules,) = (one for one in map(yaml.safe_load, _blocks("yaml")) if "groups" in one)
    return list(rules["groups"][0]["rules"])


def test_the_table_has_every_metric_with_its_labels_and_no_other() -> None:
    shown = {name: set(re.findall(r"`(\w+)`", labels)) for name, labels, _ in _ROW.findall(_PAGE)}
    assert shown == _labels()


@pytest.mark.parametrize("metric", [*SERVER_METRICS, *PARTITION_METRICS], ids=lambda one: one.name)
def test_the_table_says_what_the_server_says(metric: Any) -> None:
    meanings = {name: meaning for name, _, meaning in _ROW.findall(_PAGE)}
    assert meanings[metric.name] == metric.meaning


def test_expressions_speak_of_metrics_that_exist() -> None:
    assert set(re.findall(r"(?<![#\w])liftbridge_\w+", _PAGE)) <= set(_labels())


def test_there_are_five_alerts_with_all_that_they_need() -> None:
    rules = _rules()
    assert len(rules) == 5
    for rule in rules:
        assert re.fullmatch(r"Liftbridge[A-Z]\w+", rule["alert"])
        assert rule["expr"]
        assert rule["annotations"]["summary"]


def test_alerts_and_expressions_choose_by_words_that_exist() -> None:
    shown = {one.name.lower() for one in MetadataEventKind}
    assert set(re.findall(r'event="(\w+)"', _PAGE)) <= shown
    assert re.findall(r'reason=~"([\w|]+)"', _PAGE) == ["storage|too_few_replicas"]


def test_the_settings_are_taken_by_a_server(tmp_path: Path) -> None:
    (tmp_path / "server.conf").write_text(_blocks("")[0])
    plugins = PluginManager()
    settings = load(plugins.settings(), file=tmp_path / "server.conf")
    assert settings["endpoints"] == ("grpc", "prometheus")
    assert settings["endpoint.prometheus.listen"] == "0.0.0.0:9293"
    plugins.check_endpoints(settings["endpoints"])


def test_promtool_takes_the_rules(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("there is no promtool in the PATH; it comes with Prometheus")
    rules = tmp_path / "rules.yml"
    rules.write_text(yaml.safe_dump({"groups": [{"name": "liftbridge", "rules": _rules()}]}))
    done = subprocess.run(
        [promtool, "check", "rules", str(rules)], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr

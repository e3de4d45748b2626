"""A plugin whose entry point is gone: the server names what is missing and how to get it, and doesn't begin."""

import configparser
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

#: Each plugin of the distribution, how to choose it, and what the error names.
PLUGINS = {
    "storage_segments": ([], ['log storage is called "segments"']),
    "storage_lmdb": ([], ['index storage is called "lmdb"', 'stable store is called "lmdb"']),
    "raft_builtin": ([], ['consensus is called "raft_builtin"']),
    "transport_nats": (["--nats-servers", "nats://127.0.0.1:1"], ['transport is called "nats"']),
    "routing_subjects": ([], ['subject router is called "subjects"']),
    "endpoint_grpc": (["--port", "0"], ['endpoint is called "grpc"']),
    "storage_sqlite": (["--set", "storage.log=sqlite"], ['log storage is called "sqlite"']),
    "memory": (["--set", "transport=memory"], ['transport is called "memory"']),
    "authorization_policy": (["--set", "tls.client.authz.enabled=true"], ['authorizer is called "policy"']),
    "metrics_prometheus": (["--set", "endpoints=grpc,prometheus"], ['endpoint is called "prometheus"']),
}
OPTIONAL = ("storage_sqlite", "memory", "authorization_policy", "metrics_prometheus")


def installed() -> dict[str, str]:
    return {one.name: one.value for one in metadata.distribution("liftbridge").entry_points.select(group="liftbridge")}


def without(folder: Path, *removed: str) -> dict[str, str]:
    """An environment in which the distribution has lost these entry points."""
    info = folder / "liftbridge-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: liftbridge\nVersion: 0.1.0\n")
    entry_points = configparser.ConfigParser(delimiters=("=",))
    entry_points["liftbridge"] = {name: target for name, target in installed().items() if name not in removed}
    with (info / "entry_points.txt").open("w") as file:
        entry_points.write(file)
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])}


def serve(environment: dict[str, str], folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "liftbridge", "serve", "--data-dir", str(folder / "data"), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)


def test_every_plugin_of_the_distribution_is_tested_here() -> None:
    assert set(installed()) == set(PLUGINS)


@pytest.mark.parametrize("plugin", PLUGINS)
def test_missing_plugin_is_named_with_the_remedy_and_nothing_is_begun(plugin: str, tmp_path: Path) -> None:
    arguments, named = PLUGINS[plugin]
    ran = serve(without(tmp_path, plugin), tmp_path, *arguments)
    assert ran.returncode == 2, ran.stderr
    for line, name in zip(ran.stderr.splitlines(), named, strict=True):
        assert f"no {name}" in line
        assert "pip install --force-reinstall liftbridge" in line
        assert ("comes with Liftbridge, so this installation is damaged" in line) == (plugin not in OPTIONAL)
    assert not (tmp_path / "data").exists()


def test_missing_transport_is_told_before_settings_that_only_it_knows(tmp_path: Path) -> None:
    config = tmp_path / "server.conf"
    config.write_text("[transport]\n[[nats]]\nservers = nats://127.0.0.1:1\n[logging]\nlevle = info\n")
    ran = serve(without(tmp_path, "transport_nats"), tmp_path, "--config", str(config))
    assert 'no transport is called "nats"' in ran.stderr
    assert "Unknown configuration setting" not in ran.stderr


def test_without_any_entry_point_the_first_missing_plugin_is_named(tmp_path: Path) -> None:
    ran = serve(without(tmp_path, *installed()), tmp_path)
    assert ran.returncode == 2
    assert 'no log storage is called "segments" (none is installed)' in ran.stderr

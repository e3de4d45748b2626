"""What a server remembers about itself, and when a stop was unclean."""

import json
from pathlib import Path

import pytest

from liftbridge.cluster import identity
from liftbridge.cluster.forming import Bootstrap
from liftbridge.cluster.identity import Identity, begin_run, end_run, load_identity, note_registered, save_identity
from liftbridge.errors import ConfigError, StorageError


def load(data_dir: Path, *, wanted_id: str = "", namespace: str = "ns") -> Identity:
    return load_identity(data_dir, wanted_id=wanted_id, fallback_id="random", namespace=namespace)


def test_a_new_directory_gets_the_configured_id_or_a_random_one(tmp_path: Path) -> None:
    assert load(tmp_path / "a", wanted_id="a") == Identity("a", "ns")
    assert load(tmp_path / "b").server_id == "random"


def test_the_stored_identity_outlives_the_configured_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save_identity(tmp_path, Identity("a", "ns", "cluster"))
    assert load(tmp_path, wanted_id="b") == Identity("a", "ns", "cluster")
    assert "not the configured b" in caplog.text


def test_a_directory_from_before_clusters_is_taken_over(tmp_path: Path) -> None:
    (tmp_path / "server.json").write_text('{"server_id": "a", "format": 1}')
    assert load(tmp_path) == Identity("a", "ns", "")


def test_a_directory_of_another_namespace_is_refused_with_what_to_do(tmp_path: Path) -> None:
    save_identity(tmp_path, Identity("a", "ns"))
    with pytest.raises(ConfigError, match="--namespace ns"):
        load(tmp_path, namespace="other")


def test_another_log_storage_would_find_no_messages_and_is_refused(tmp_path: Path) -> None:
    def load_with(log_storage: str) -> Identity:
        return load_identity(tmp_path, wanted_id="a", fallback_id="", namespace="ns", log_storage=log_storage)

    (tmp_path / "server.json").write_text('{"server_id": "a", "namespace": "ns", "cluster_id": "c", "format": 1}')
    noted = load_with("segments")  # by a version that noted no storage
    assert noted == Identity("a", "ns", "c", "segments")
    save_identity(tmp_path, noted)  # as every server does once it is in its cluster
    with pytest.raises(ConfigError, match=r"use another data directory, or storage\.log = segments"):
        load_with("sqlite")
    assert load_with("segments") == noted


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"format": 1}', '{"server_id": "a"}', '{"server_id": "a", "format": 2}']
)
def test_what_is_no_identity_is_an_error_that_names_the_directory(tmp_path: Path, content: str) -> None:
    (tmp_path / "server.json").write_text(content)
    with pytest.raises(StorageError, match=str(tmp_path)):
        load(tmp_path)


# --- clean or not -----------------------------------------------------------------------------------------------------


@pytest.fixture
def boot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file in which the system says which boot this is."""
    path = tmp_path / "boot_id"
    path.write_text("first\n")
    monkeypatch.setattr(identity, "_BOOT_ID", path)
    return path


def test_the_first_start_and_one_after_a_clean_stop_are_clean(tmp_path: Path, boot: Path) -> None:
    assert begin_run(tmp_path) is False
    end_run(tmp_path)
    boot.write_text("second")
    assert begin_run(tmp_path) is False


def test_a_killed_process_lost_nothing_as_long_as_the_machine_ran_on(tmp_path: Path, boot: Path) -> None:
    begin_run(tmp_path)
    assert begin_run(tmp_path) is False


def test_a_machine_that_went_down_meanwhile_makes_starts_unclean_until_the_cluster_knows(
    tmp_path: Path, boot: Path
) -> None:
    begin_run(tmp_path)
    boot.write_text("second")
    assert begin_run(tmp_path) is True
    assert begin_run(tmp_path) is True, "the start before was killed before it was registered"
    note_registered(tmp_path)
    assert begin_run(tmp_path) is False


def test_every_crash_is_unclean_where_the_system_names_no_boot(tmp_path: Path, boot: Path) -> None:
    boot.unlink()
    begin_run(tmp_path)
    assert begin_run(tmp_path) is True


@pytest.mark.parametrize("torn", ["", "{", "{}", json.dumps({"boot_id": 7})])
def test_a_torn_note_is_an_unclean_stop(tmp_path: Path, boot: Path, torn: str) -> None:
    (tmp_path / "running.json").write_text(torn)
    assert begin_run(tmp_path) is True


# --- who begins -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bootstrap", "server_id", "voters"),
    [
        (Bootstrap(seed=False, peers=(), max_voters=0), "a", ()),
        (Bootstrap(seed=True, peers=(), max_voters=0), "a", ("a",)),
        (Bootstrap(seed=False, peers=("c", "b"), max_voters=0), "a", ("a", "b", "c")),
        (Bootstrap(seed=True, peers=("a", "b"), max_voters=0), "a", ("a", "b")),
        (Bootstrap(seed=False, peers=("a", "b", "c"), max_voters=2), "b", ("a", "b")),
        (Bootstrap(seed=False, peers=("a", "b", "c"), max_voters=2), "c", ()),
    ],
)
def test_first_voters_are_the_same_on_every_server_of_a_list(
    bootstrap: Bootstrap, server_id: str, voters: tuple[str, ...]
) -> None:
    assert bootstrap.voters(server_id) == voters


def test_data_of_the_original_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "raft").mkdir()
    (tmp_path / "raft" / "raft.db").touch()
    with pytest.raises(StorageError, match="is the original Liftbridge's"):
        load_identity(tmp_path, wanted_id="a", fallback_id="", namespace="ns")
    assert [path.name for path in tmp_path.iterdir()] == ["raft"]

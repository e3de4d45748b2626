"""The config: what may be written, what it becomes, who wins, and what is said about mistakes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from liftbridge.config import Settings, format_duration, format_size, load, parse_duration, parse_size
from liftbridge.errors import ConfigError
from liftbridge.interfaces.provider import Seam
from liftbridge.interfaces.settings import Setting, SettingKind
from liftbridge.plugin_manager import PluginManager
from liftbridge.settings import chosen_providers

_PLUGINS = PluginManager().settings()
_Read = Callable[..., Settings]


@pytest.fixture
def read(tmp_path: Path) -> _Read:
    """Loads a file with the text, beside flags and environment."""

    def read_text(text: str, name: str = "server.conf", **more: Any) -> Settings:
        file = tmp_path / name
        file.write_text(text)
        return load(_PLUGINS, file=file, **{"environment": {}, **more})

    return read_text


def _mistakes(call: Callable[[], object]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        call()
    return str(caught.value).splitlines()


# --- the native format ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "streams.retention.max.age = 7d",
        "[streams]\nretention.max.age = 7d",
        "[streams]\n[[retention]]\nmax.age = 7d",
        "[streams]\n[[retention]]\n[[[max]]]\nage = 7d",
        "STREAMS.Retention.Max.Age = 7d",
    ],
)
def test_sections_and_dots_are_the_same(read: _Read, text: str) -> None:
    assert read(text)["streams.retention.max.age"] == 7 * 86_400


def test_every_kind_becomes_what_it_says(read: _Read) -> None:
    settings = read(
        "clustering.server.id = one\nport = 9000\nlogging.raft = yes\nbatch.max.time = 5ms\n"
        "streams.segment.max.bytes = 1MiB\nnats.servers = nats://a, nats://b\ndata.dir = ~/data\n"
    )
    assert settings["clustering.server.id"] == "one"
    assert settings["endpoint.grpc.port"] == 9000
    assert settings["logging.raft"] is True
    assert settings["batch.max.time"] == 0.005
    assert settings["streams.segment.max.bytes"] == 1 << 20
    assert settings["transport.nats.servers"] == ("nats://a", "nats://b")
    assert settings["data.dir"] == Path.home() / "data"


def test_choice_of_a_transport_and_its_section_fit_into_one_file(read: _Read) -> None:
    settings = read(
        "[transport]\nprovider = nats\n[[nats]]\nservers = nats://a\nembedded = true\nembedded.listen = a:1"
    )
    assert settings["transport"] == "nats"
    assert settings["transport.nats.servers"] == ("nats://a",)
    assert settings["transport.nats.embedded"] is True
    assert settings["transport.nats.embedded.listen"] == "a:1"


def test_percent_signs_and_dollars_are_only_text(read: _Read) -> None:
    assert read("nats.password = '%(x)s$HOME,#'")["transport.nats.password"] == "%(x)s$HOME,#"


def test_template_holds_the_settings_of_some_streams(read: _Read) -> None:
    settings = read("[templates]\n[[money]]\nmatch = pay-*\nstreams.durability = sync\nstreams.retention.max.age = 0")
    (template,) = settings.templates
    assert (template.name, template.match) == ("money", "pay-*")
    assert dict(template.settings) == {"streams.durability": "sync", "streams.retention.max.age": 0.0}
    assert settings["streams.durability"] == "page"


def test_template_takes_stream_settings_only_and_needs_a_match(read: _Read) -> None:
    wrong, without = _mistakes(lambda: read("[templates]\n[[money]]\nport = 1\n"))
    assert 'template "money"' in wrong
    assert '"port"' in wrong
    assert '"match"' in without


# --- the original's files ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "streams.retention.max.age: 1h",
        "streams: {retention.max: {age: 1h}}",
        "streams:\n  retention:\n    max.age: 1h",
        '{"streams": {"retention.max.age": "1h"}}',
        "# first\n---\nStreams:\n  RETENTION.max.age: 1h",
    ],
)
def test_yaml_is_known_by_its_look(read: _Read, text: str) -> None:
    assert read(text)["streams.retention.max.age"] == 3600


def test_file_of_the_original_means_the_same(read: _Read) -> None:
    settings = read(
        "listen: localhost:9293\nhost: example.com\ndata.dir: /data\nlogging: {level: DEBUG}\n"
        "tls: {key: k.pem, cert: c.pem}\nnats:\n  servers: [nats://a:4222, nats://b:4222]\n  embedded: false\n"
        "clustering:\n  server.id: s1\n  raft.bootstrap.seed: true\n  replica.max.lag.time: 20s\n"
        "streams:\n  retention.max.age: '24h'\n  segment.max.bytes: '1024'\n",
        "liftbridge.yaml",
    )
    assert settings["endpoint.grpc.listen"] == "localhost:9293"
    assert settings["endpoint.grpc.tls.key"] == "k.pem"
    assert settings["transport.nats.servers"] == ("nats://a:4222", "nats://b:4222")
    assert settings["transport.nats.embedded"] is False
    assert settings["logging.level"] == "debug"
    assert settings["streams.segment.max.bytes"] == 1024


def test_bare_number_in_yaml_is_nanoseconds_and_says_so(read: _Read) -> None:
    settings = read("streams.retention.max.age: 3600", "server.yaml")
    assert settings["streams.retention.max.age"] == pytest.approx(3.6e-6)
    (warning,) = settings.warnings
    assert "line 1" in warning
    assert "nanoseconds" in warning


@pytest.mark.parametrize("key", ["data.dir", "nats.servers", "nats.tls.ca", "nats.user"])
def test_key_without_a_value_is_unset(read: _Read, key: str) -> None:
    unset = read(f"{key}:", "server.yaml")
    assert unset["transport.nats.servers"] in ((), ("nats://127.0.0.1:4222",))
    assert unset["transport.nats.tls.ca"] is None
    assert unset["data.dir"].name == "liftbridge-default"
    assert unset["transport.nats.user"] == ""


@pytest.mark.parametrize("text", ["- a\n- b", "just text"])
def test_yaml_that_holds_no_settings_is_refused(read: _Read, text: str) -> None:
    (mistake,) = _mistakes(lambda: read(text, "server.yaml"))
    assert "holds no settings" in mistake


# --- who wins ---------------------------------------------------------------------------------------------------------


def test_flags_beat_environment_beats_file_beats_defaults(read: _Read) -> None:
    text = "port = 1\nclustering.namespace = file\nlogging.level = warn"
    settings = read(
        text,
        environment={"LIFTBRIDGE_PORT": "2", "LIFTBRIDGE_CLUSTERING_NAMESPACE": "environment"},
        flags={"endpoint.grpc.port": "3"},
    )
    assert settings["endpoint.grpc.port"] == 3
    assert settings["clustering.namespace"] == "environment"
    assert settings["logging.level"] == "warn"
    assert settings["batch.max.messages"] == 1024


def test_every_value_knows_where_it_comes_from(read: _Read) -> None:
    settings = read(
        "\nport = 1", environment={"LIFTBRIDGE_CLUSTERING_NAMESPACE": "x"}, flags={"logging.level": "error"}
    )
    assert settings.sources["endpoint.grpc.port"].endswith("server.conf, line 2")
    assert settings.sources["clustering.namespace"] == "environment variable LIFTBRIDGE_CLUSTERING_NAMESPACE"
    assert settings.sources["logging.level"] == "command line"
    assert "batch.max.messages" not in settings.sources


@pytest.mark.parametrize("variable", ["LIFTBRIDGE_LOGGING_LEVEL", "LIFTBRIDGE_LOGGING.LEVEL"])
def test_environment_works_without_a_file_with_underscores_or_dots(variable: str) -> None:
    assert load([], environment={variable: "error"})["logging.level"] == "error"


def test_strangers_in_the_environment_are_left_alone() -> None:
    load([], environment={"LIFTBRIDGE_ENCRYPTION_KEY": "x", "LIFTBRIDGE_SERVERS": "y", "PORT": "z"})


def test_default_data_directory_belongs_to_the_namespace() -> None:
    settings = load([], flags={"clustering.namespace": "other"}, environment={})
    assert settings["data.dir"].parts[-2:] == ("liftbridge", "other")


# --- mistakes ---------------------------------------------------------------------------------------------------------


def test_every_mistake_is_reported_at_once_with_its_place(read: _Read) -> None:
    text = "port = x\nlogging.levl = info\n[streams]\nretention.max.age = 7\n"
    port, level, age = _mistakes(lambda: read(text))
    assert "server.conf, line 1:" in port
    assert '"x": must be a whole number' in port
    assert "line 2:" in level
    assert 'Unknown configuration setting "logging.levl"; did you mean "logging.level"?' in level
    assert "line 4:" in age
    assert "duration with a unit" in age


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("port = 65536", "from 0 to 65535"),
        ("logging.level = loud", "one of debug, info, warn"),
        ("logging.raft = maybe", "true or false"),
        ("batch.max.messages = 0", "more than 0"),
        ("streams.retention.max.age = -1s", "duration"),
        ("streams.segment.max.bytes = 2GiB", "less than 2GiB"),
        ("streams.segment.max.bytes = lots", "size"),
        ("clustering.server.id = a.b", "must not contain"),
        ("clustering.namespace = ''", "must not be empty"),
        ("clustering.server.id = a, b", "not a list"),
    ],
)
def test_wrong_value_is_named_with_what_would_be_right(read: _Read, line: str, said: str) -> None:
    (mistake,) = _mistakes(lambda: read(line))
    assert line.split(" = ", maxsplit=1)[0].removeprefix("[") in mistake
    assert said in mistake


def test_protection_that_does_not_exist_is_refused_not_ignored(read: _Read) -> None:
    (mistake,) = _mistakes(lambda: read("tls.client.authn.enabled: true", "server.yaml"))
    assert 'Unknown configuration setting "tls.client.authn.enabled"; did you mean "tls.client.auth' in mistake


def test_the_originals_word_for_authorization_chooses_the_authorizer_of_its_files(read: _Read) -> None:
    file = "tls:\n  client:\n    authz: {enabled: true, model: m.conf, policy: p.csv}\n"
    settings = read(file, "server.yaml")
    assert chosen_providers(settings, Seam.AUTHORIZER) == ("policy",)
    assert settings["authorization.policy.model"] == Path("m.conf")
    assert settings["authorization.policy.file"] == Path("p.csv")
    assert chosen_providers(read(file, "s.yaml", flags={"authorization": "ldap"}), Seam.AUTHORIZER) == ("ldap",)
    assert chosen_providers(read("port = 1"), Seam.AUTHORIZER) == ()


def test_the_authorizer_and_its_section_fit_into_one_file(read: _Read) -> None:
    settings = read("[authorization]\nprovider = policy\n[[policy]]\nfile = /etc/policy.csv")
    assert chosen_providers(settings, Seam.AUTHORIZER) == ("policy",)
    assert settings["authorization.policy.file"] == Path("/etc/policy.csv")


def test_a_name_that_is_like_no_other_has_no_suggestion(read: _Read) -> None:
    assert _mistakes(lambda: read("prot = 1"))[0].endswith('"prot"; did you mean "port"?')
    assert _mistakes(lambda: read("streams.bogus.a = 1"))[0].endswith('"streams.bogus.a"')


@given(st.integers(0, 10**19), st.integers(0, 2**63))
def test_durations_and_sizes_are_written_as_they_are_read(nanoseconds: int, size: int) -> None:
    seconds = nanoseconds / 1e9
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds, rel=1e-12)
    assert parse_size(format_size(size)) == size


def test_setting_without_effect_yet_is_accepted_with_a_warning(read: _Read) -> None:
    (warning,) = read("streams.concurrency.control = true").warnings
    assert "streams.concurrency.control has no effect yet" in warning
    assert read("streams.concurrency.control = false").warnings == ()


def test_missing_and_unreadable_files_are_named(tmp_path: Path) -> None:
    missing = tmp_path / "missing.conf"
    assert str(missing) in _mistakes(lambda: load([], file=missing, environment={}))[0]
    broken = tmp_path / "broken.conf"
    broken.write_bytes(b"\xff\xfe")
    assert str(broken) in _mistakes(lambda: load([], file=broken, environment={}))[0]


@pytest.mark.parametrize(("name", "text"), [("a.conf", "[streams\nx = 1"), ("a.yaml", "a: [1\nb: 2")])
def test_syntax_error_says_where(read: _Read, name: str, text: str) -> None:
    assert "line" in " ".join(_mistakes(lambda: read(text, name)))


def test_name_declared_twice_is_refused() -> None:
    twice = Setting("port", SettingKind.INTEGER, 1, "Clashes with an alias.")
    assert "port is declared twice" in _mistakes(lambda: load([*_PLUGINS, twice], environment={}))[0]


def test_settings_are_frozen() -> None:
    settings = load([], environment={})
    with pytest.raises(TypeError):
        settings.values_by_name["batch.max.messages"] = 1  # type: ignore[index]


# --- durations and sizes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("1h30m", 5400), ("1.5s", 1.5), ("250ms", 0.25), ("10us", 1e-5), ("1w2d", 777_600), ("7ns", 7e-9)],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "5", "s", "5 s", "1h30", "-1s", "1e3s", "1h,2m", "٣s"])
def test_what_is_not_a_duration(text: str) -> None:
    with pytest.raises(ValueError, match="duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("1048576", 1 << 20), ("64KiB", 65_536), ("1MB", 1_000_000), ("1.5 GiB", 3 << 29), ("2k", 2000)],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@given(st.text(max_size=12))
def test_any_text_is_a_duration_and_a_size_or_a_clear_mistake(text: str) -> None:
    for parse in (parse_duration, parse_size):
        try:
            assert parse(text) >= 0
        except ValueError as error:
            assert "must be a" in str(error)


@given(st.integers(0, 10**6), st.sampled_from(["ms", "s", "m", "h", "d"]), st.integers(0, 999))
def test_parts_of_a_duration_add_up(count: int, unit: str, rest_ms: int) -> None:
    assert parse_duration(f"{count}{unit}{rest_ms}ms") == pytest.approx(
        parse_duration(f"{count}{unit}") + rest_ms / 1000
    )

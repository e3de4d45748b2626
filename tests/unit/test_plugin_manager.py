"""Plugins: found by their entry points, checked before they run, and named when something is wrong with them."""

import io
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from liftbridge.errors import ConfigError, DuplicateProvider, IncompatiblePlugin, PluginError, PluginNotFound
from liftbridge.hookspecs import hookimpl
from liftbridge.interfaces.endpoint import FOR_OPERATORS
from liftbridge.interfaces.provider import Provider, Seam
from liftbridge.interfaces.settings import Setting, SettingKind
from liftbridge.plugin_manager import PROVIDER_HOOKS, PluginManager


def _plugin(**hooks: Any) -> Any:
    """A plugin with these hooks, each given as a function."""
    return type("Plugin", (), {f"liftbridge_{name}": staticmethod(hookimpl(hook)) for name, hook in hooks.items()})()


def _provider(name: str = "mine", **more: Any) -> Provider:
    return Provider(name, "for tests", lambda context: object(), **more)


def _manager(*plugins: Any) -> PluginManager:
    return PluginManager([(f"plugin{number}", plugin) for number, plugin in enumerate(plugins)], entry_points=False)


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Installs a distribution with one plugin module, as pip would lay it out."""

    def install_one(name: str, source: str, version: str = "1.2.3") -> None:
        folder = tmp_path / name
        info = folder / f"{name}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[liftbridge]\n{name} = {name}_plugin\n")
        (folder / f"{name}_plugin.py").write_text(source)
        monkeypatch.syspath_prepend(str(folder))

    return install_one


def test_a_log_is_shown_for_programs_by_plugins_that_know_how() -> None:
    def old(path: str, out: Any, values: bool) -> bool:
        out.write("text")
        return True

    def new(path: str, out: Any, as_json: bool) -> bool | None:
        out.write("json" if as_json else "more text")
        return path == "known" or None

    out = io.StringIO()
    manager = _manager(_plugin(dump_log=new), _plugin(dump_log=old))
    assert manager.dump_log("known", out, values=False, as_json=True)
    assert not manager.dump_log("unknown", out, values=False, as_json=True)
    assert manager.dump_log("known", out, values=False, as_json=False)
    assert out.getvalue() == "jsonjsontext"


# --- what is found ----------------------------------------------------------------------------------------------------


def test_default_plugins_offer_every_seam() -> None:
    assert {offer.seam for offer in PluginManager().offers()} == set(Seam)


def test_every_seam_has_its_hook() -> None:
    assert set(PROVIDER_HOOKS) == set(Seam)


def test_installed_distribution_is_found_and_named(install: Any) -> None:
    install(
        "acme",
        "from liftbridge.hookspecs import hookimpl\nfrom liftbridge.interfaces.provider import Provider\n"
        "@hookimpl\ndef liftbridge_transport():\n    return Provider('pigeons', 'slow', lambda context: None)\n",
    )
    manager = PluginManager()
    assert manager.provider(Seam.TRANSPORT, "pigeons").summary == "slow"
    (offer,) = [offer for offer in manager.offers() if offer.provider.name == "pigeons"]
    assert str(offer.origin) == 'plugin "acme" of acme 1.2.3'


def test_one_plugin_may_offer_several_providers_and_seams() -> None:
    manager = _manager(
        _plugin(transport=lambda: [_provider("a"), _provider("b")], stable_store=lambda: _provider("a")),
    )
    assert [(offer.seam, offer.provider.name) for offer in manager.offers()] == [
        (Seam.STABLE_STORE, "a"),
        (Seam.TRANSPORT, "a"),
        (Seam.TRANSPORT, "b"),
    ]


def test_listing_is_ordered_by_seam_and_name() -> None:
    offers = PluginManager().offers()
    seams = list(Seam)
    assert [seams.index(offer.seam) for offer in offers] == sorted(seams.index(offer.seam) for offer in offers)


# --- what is refused --------------------------------------------------------------------------------------------------


def test_plugin_that_cannot_be_imported_is_named(install: Any) -> None:
    install("broken", "import no_such_module_anywhere\n")
    with pytest.raises(PluginError, match=r'plugin "broken" of broken 1\.2\.3.*no_such_module_anywhere.*uninstall'):
        PluginManager()


def test_misspelt_hook_is_refused_with_the_nearest() -> None:
    with pytest.raises(IncompatiblePlugin, match="no hook liftbridge_transprot; did you mean liftbridge_transport"):
        _manager(_plugin(transprot=lambda: _provider("mine")))


def test_hook_without_the_marker_is_refused() -> None:
    with pytest.raises(IncompatiblePlugin, match="liftbridge_transport isn't marked"):
        _manager(SimpleNamespace(liftbridge_transport=lambda: _provider("mine")))


def test_hook_with_another_signature_is_refused() -> None:
    with pytest.raises(IncompatiblePlugin, match=r"plugin0.*planet"):
        _manager(_plugin(broker_started=lambda planet: None))


def test_two_providers_of_one_name_are_refused_naming_both() -> None:
    with pytest.raises(DuplicateProvider, match=r'transport "mine".*plugin\d.*plugin\d.*uninstall one'):
        _manager(_plugin(transport=lambda: _provider("mine")), _plugin(transport=lambda: _provider("mine")))


def test_two_seams_may_use_one_name() -> None:
    assert (
        len(_manager(_plugin(transport=lambda: _provider("mine"), consensus=lambda: _provider("mine"))).offers()) == 2
    )


@pytest.mark.parametrize(("generation", "advice"), [(0, "upgrade the plugin"), (2, "upgrade liftbridge")])
def test_other_generation_is_refused_with_advice(generation: int, advice: str) -> None:
    with pytest.raises(IncompatiblePlugin, match=f"generation {generation}.*{advice}"):
        _manager(_plugin(transport=lambda: _provider(generation=generation)))


@pytest.mark.parametrize("answer", [None, "nats", ["nats"], {"name": "nats"}, Provider])
def test_answer_that_is_no_provider_is_refused(answer: Any) -> None:
    with pytest.raises(IncompatiblePlugin, match="liftbridge_transport returned"):
        _manager(SimpleNamespace(liftbridge_transport=hookimpl(lambda: [answer] if answer is None else answer)))


def test_create_without_a_context_is_refused() -> None:
    with pytest.raises(IncompatiblePlugin, match="create must take the context"):
        _manager(_plugin(transport=lambda: Provider("mine", "", lambda: None)))  # type: ignore[misc, arg-type]


def test_hook_that_raises_at_start_is_named() -> None:
    with pytest.raises(PluginError, match=r"plugin0.*liftbridge_transport failed: ZeroDivisionError"):
        _manager(_plugin(transport=lambda: 1 / 0))


def test_unknown_provider_lists_what_is_installed_and_the_nearest() -> None:
    with pytest.raises(PluginNotFound) as caught:
        PluginManager().provider(Seam.LOG_STORAGE, "segmnets")
    text = str(caught.value)
    assert 'no log storage is called "segmnets" (installed: memory, segments, sqlite). Did you mean "segments"?' in text
    assert "pip install" in text


def test_without_any_plugin_the_missing_seam_is_named_with_the_remedy() -> None:
    with pytest.raises(PluginNotFound, match=r'no transport is called "nats" \(none is installed\).*pip install'):
        _manager().provider(Seam.TRANSPORT, "nats")


# --- settings ---------------------------------------------------------------------------------------------------------


def _setting(name: str, *aliases: str) -> Setting:
    return Setting(name, SettingKind.STRING, "", "For tests.", aliases=aliases)


def test_settings_of_all_plugins_are_collected() -> None:
    manager = _manager(_plugin(add_settings=lambda: [_setting("a")]), _plugin(add_settings=lambda: (_setting("b"),)))
    assert {setting.name for setting in manager.settings()} == {"a", "b"}


def test_setting_of_two_plugins_is_refused_naming_both() -> None:
    manager = _manager(
        _plugin(add_settings=lambda: [_setting("a")]), _plugin(add_settings=lambda: [_setting("b", "a")])
    )
    with pytest.raises(DuplicateProvider, match=r"the setting a: plugin .*plugin\d.* and plugin .*plugin\d"):
        manager.settings()


@pytest.mark.parametrize("answer", ["a", {"a": 1}, [("a", 1)], 7])
def test_answer_that_is_no_list_of_settings_is_refused(answer: Any) -> None:
    with pytest.raises(IncompatiblePlugin, match="not a list of Setting"):
        _manager(_plugin(add_settings=lambda: answer)).settings()


# --- policies and observers -------------------------------------------------------------------------------------------


def test_first_policy_with_an_opinion_decides() -> None:
    def silent(candidates: Any) -> None:
        return None

    def last(candidates: Any) -> str:
        return str(candidates[-1])

    manager = _manager(_plugin(choose_leader=last), _plugin(choose_leader=silent))
    assert manager.policy.choose_leader("s", 0, ["a", "b"], {"a": 1, "b": 0}) == "b"
    assert _manager().policy.choose_leader("s", 0, ["a"], {"a": 0}) is None
    assert _manager().policy.place_replicas("s", 0, 1, {"a": 0}) is None


def test_observer_that_raises_is_logged_and_counted_and_the_others_still_run(caplog: pytest.LogCaptureFixture) -> None:
    told: list[str] = []

    def broken(server_id: str) -> None:
        raise RuntimeError("no")

    def good(server_id: str) -> None:
        told.append(server_id)

    manager = _manager(*(_plugin(broker_stopping=hook) for hook in (good, broken, good)))
    with caplog.at_level(logging.ERROR):
        manager.notify("liftbridge_broker_stopping", server_id="s1")
        manager.notify("liftbridge_broker_stopping", server_id="s2")
    assert sorted(told) == ["s1", "s1", "s2", "s2"]
    assert manager.observer_failures == {"plugin1": 2}
    assert "plugin1" in caplog.text
    assert "liftbridge_broker_stopping failed" in caplog.text


# --- endpoints --------------------------------------------------------------------------------------------------------


def test_clients_can_use_the_first_endpoint() -> None:
    plugins = _manager(
        _plugin(endpoint=lambda: [_provider("grpc"), _provider("watch", capabilities=frozenset({FOR_OPERATORS}))])
    )
    plugins.check_endpoints(["grpc", "watch"])
    with pytest.raises(ConfigError, match=r"Write: endpoints = grpc, watch$"):
        plugins.check_endpoints(["watch", "grpc"])
    with pytest.raises(ConfigError, match=r"Write: endpoints = grpc, watch$"):
        plugins.check_endpoints(["watch"])
    with pytest.raises(ConfigError, match="name at least one"):
        plugins.check_endpoints([])

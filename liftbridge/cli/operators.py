"""The commands for who runs servers: what happens once their flags are read. Each returns its exit code."""

import argparse
import json
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from liftbridge.config import Settings, load
from liftbridge.errors import ConfigError, PluginNotFound
from liftbridge.plugin_manager import PluginManager
from liftbridge.plugin_template import write_project
from liftbridge.settings import PROVIDER_SETTINGS, chosen_providers

_SECRETS, _HIDDEN = (".password", ".token"), "(hidden)"


def serve(options: argparse.Namespace) -> int:
    plugins = PluginManager()
    settings = _load(plugins, options.config, _flags(options))
    _configure_logging(settings)
    for warning in (*settings.warnings, *_storing_where(settings)):
        logging.getLogger(__name__).warning(warning)
    from liftbridge.running import run as run_server

    return run_server(settings, plugins)


def _storing_where(settings: Settings) -> Iterator[str]:
    """The default is the original's."""
    if "data.dir" not in settings.sources:
        yield f"Everything is stored in {settings['data.dir']}, which the system may empty: say where with --data-dir"


def _load(plugins: PluginManager, file: Path | None, flags: Mapping[str, Any] | None = None) -> Settings:
    """The settings, whose choices are all installed."""
    return load(plugins.settings(), file=file, flags=flags, verify=lambda values: check_choices(values, plugins))


def _flags(options: argparse.Namespace) -> dict[str, Any]:
    flags = {
        name.removeprefix("set:"): value
        for name, value in vars(options).items()
        if name.startswith("set:") and value is not None
    }
    for assignment in options.set:
        key, equals, value = assignment.partition("=")
        if not equals:
            raise ConfigError(f"--set {assignment}: write it as --set key=value")
        flags[key.strip()] = value.strip()
    return flags


def _configure_logging(settings: Settings) -> None:
    from liftbridge.log_format import configure_logging

    configure_logging(settings["logging.level"], nats=settings["logging.nats"], raft=settings["logging.raft"])


def demo(options: argparse.Namespace) -> int:
    from liftbridge.demo import run as run_demo

    return run_demo(port=options.port, data_dir=options.data_dir, stay=options.stay)


def plugins(options: argparse.Namespace) -> int:
    plugins = PluginManager()
    settings = load(plugins.settings(), file=options.config)
    rows = [
        {
            "kind": str(offer.seam),
            "name": offer.provider.name,
            "chosen": offer.provider.name in chosen_providers(settings, offer.seam),
            "distribution": offer.origin.distribution,
            "version": offer.origin.version,
            "generation": offer.provider.generation,
            "capabilities": sorted(offer.provider.capabilities),
            "summary": offer.provider.summary,
        }
        for offer in plugins.offers()
    ]
    if options.json:
        print(json.dumps(rows, indent=2))
    else:
        _print_table(rows)
    return 0


def new_plugin(options: argparse.Namespace) -> int:
    _refuse_taken(options.name, options.seam)
    project = write_project(options.name, options.seam, options.directory)
    print(f"Wrote {project}. Next:\n  cd {project}\n  pip install -e '.[test]'\n  pytest")
    return 0


def _refuse_taken(name: str, seam_name: str) -> None:
    """Two plugins that offer one name would keep a server from starting."""
    provider = name.rpartition("-")[2]
    for offer in PluginManager().offers():
        if offer.provider.name == provider and offer.seam.name.lower() == seam_name:
            raise ConfigError(
                f'there is a {offer.seam} called "{provider}" already, from {offer.origin.distribution}: let the name end in '
                "another word"
            )


def check_choices(settings: Mapping[str, Any], plugins: PluginManager) -> None:
    """Raises PluginNotFound for the choices that nothing installed offers."""
    missing = []
    for seam in PROVIDER_SETTINGS:
        for name in chosen_providers(settings, seam):
            try:
                plugins.provider(seam, name)
            except PluginNotFound as error:
                missing.append(str(error))
    if missing:
        raise PluginNotFound("\n".join(missing))


def _print_table(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in rows[0] if rows else ():
        table.add_column(column, overflow="fold", no_wrap=column in ("kind", "name"))
    for row in rows:
        table.add_row(*(_cell(value) for value in row.values()))
    width = None if sys.stdout.isatty() else 200
    Console(width=width).print(table)


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else ""
    return ", ".join(value) if isinstance(value, list) else str(value)


def config(options: argparse.Namespace) -> int:
    plugins = PluginManager()
    settings = _load(plugins, options.file)
    for warning in settings.warnings:
        print(f"liftbridge: warning: {warning}", file=sys.stderr)
    if options.action == "check":
        _refuse_what_no_server_starts_with(settings, plugins)
        place = str(options.file or "defaults and environment")
        print(json.dumps({"checked": place, "ok": True}) if options.json else f"{place}: ok")
    elif options.json:
        print(json.dumps(_settings_as_json(settings), indent=2))
    else:
        _print_settings(settings)
    return 0


def _print_settings(settings: Settings) -> None:
    for name, value in sorted(settings.items()):
        shown = _HIDDEN if _is_secret(name, value) else settings.written(name, value)
        print(f"{name} = {shown}    # {_source(settings, name)}")
    for template in settings.templates:
        print(f"templates.{template.name}.match = {template.match}")
        for name, value in sorted(template.settings.items()):
            print(f"templates.{template.name}.{name} = {settings.written(name, value)}")


def _settings_as_json(settings: Settings) -> dict[str, Any]:
    return {
        "settings": {
            name: {
                "value": _HIDDEN if _is_secret(name, value) else _plain(value),
                "source": _source(settings, name),
            }
            for name, value in sorted(settings.items())
        },
        "templates": [
            {
                "name": template.name,
                "match": template.match,
                "settings": {name: _plain(value) for name, value in sorted(template.settings.items())},
            }
            for template in settings.templates
        ],
    }


def _is_secret(name: str, value: Any) -> bool:
    return bool(value) and name.endswith(_SECRETS)


def _source(settings: Settings, name: str) -> str:
    return settings.sources.get(name, "default")


def _plain(value: Any) -> Any:
    """What JSON has a word for: paths are text."""
    return str(value) if isinstance(value, Path) else value


def _refuse_what_no_server_starts_with(settings: Settings, plugins: PluginManager) -> None:
    from liftbridge.checking import find_mistakes

    mistakes = find_mistakes(settings, plugins)
    if mistakes:
        raise ConfigError("\n".join(mistakes))


def cluster(options: argparse.Namespace) -> int:
    from liftbridge.operating import ClusterQuestion
    from liftbridge.operating import run as run_question

    if options.partition is not None and not options.stream:
        raise ConfigError("--partition needs --stream: of which stream is the partition?")
    plugins = PluginManager()
    settings = _load(plugins, options.config, _flags(options))
    question = ClusterQuestion(
        action=options.action,
        server_id=options.server_id,
        stream=options.stream,
        partition=options.partition or 0,
        accept_loss=options.accept_loss,
        timeout_s=options.timeout,
        as_json=options.json,
    )
    return run_question(question, settings, plugins)


def dump_log(options: argparse.Namespace) -> int:
    plugins = PluginManager()
    for path in options.paths:
        if not os.path.exists(path):
            raise ConfigError(f"there is no {path}")
        if len(options.paths) > 1 and not options.json:
            print(f"{path}:")
        if not plugins.dump_log(path, sys.stdout, values=options.values, as_json=options.json):
            raise ConfigError(
                f"{path} is neither a segment file nor a partition's directory, as DATA-DIR/streams/4-0 is"
            )
    return 0

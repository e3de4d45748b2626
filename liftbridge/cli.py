"""The command line.

``serve`` is the server and takes the original's flags; ``liftbridge --flags`` without a command means ``serve``, as it
does there. Errors are one line on standard error, without a traceback; exit code 2 means that what was asked for is
wrong, 1 that it failed.

argparse, because the server process is this process, and the friendlier libraries would stay in its memory.
"""

import argparse
import json
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from liftbridge.config import Settings, load
from liftbridge.errors import ConfigError, LiftbridgeError, PluginError
from liftbridge.interfaces.provider import Seam
from liftbridge.plugin_manager import PluginManager
from liftbridge.plugin_template import SEAM_NAMES, write_project
from liftbridge.settings import PROVIDER_SETTINGS
from liftbridge.version import version

_EXIT_FAILED, _EXIT_USAGE = 1, 2
_SECRETS, _HIDDEN = (".password", ".token"), "(hidden)"


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """The entry point of the ``liftbridge`` command."""
    sys.exit(run(sys.argv[1:] if argv is None else argv))


def run(argv: Sequence[str]) -> int:
    """Runs one command line and returns its exit code."""
    arguments = list(argv)
    if arguments and arguments[0].startswith("-") and arguments[0] not in ("-h", "--help", "-v", "--version"):
        arguments.insert(0, "serve")
    parser = make_parser()
    options = parser.parse_args(arguments)
    if options.command is None:
        parser.print_help()
        return 0
    command: Callable[[argparse.Namespace], int] = options.command
    try:
        return command(options)
    except (ConfigError, PluginError) as error:
        _complain(error)
        return _EXIT_USAGE
    except (LiftbridgeError, OSError) as error:
        _complain(error)
        return _EXIT_FAILED
    except KeyboardInterrupt:
        return 130


def _complain(error: Exception) -> None:
    if logging.getLogger().isEnabledFor(logging.DEBUG):
        logging.getLogger(__name__).debug("what went wrong", exc_info=error)
    for line in str(error).splitlines() or [type(error).__name__]:
        print(f"liftbridge: {line}", file=sys.stderr)


# --- the parser -------------------------------------------------------------------------------------------------------


def make_parser() -> argparse.ArgumentParser:
    """Every command and flag; the tests hold the reference to it."""
    parser = argparse.ArgumentParser(
        prog="liftbridge",
        description="Durable, replicated, replayable message streams for NATS.",
        epilog='"liftbridge --raft-bootstrap-seed ..." without a command means "liftbridge serve ...".',
    )
    parser.add_argument("-v", "--version", action="version", version=f"liftbridge version {version()}")
    parser.set_defaults(command=None)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    _add_serve(commands)
    _add_demo(commands)
    _add_plugins(commands)
    _add_plugin(commands)
    _add_config(commands)
    _add_dump_log(commands)
    _add_cluster(commands)
    return parser


def _add_serve(commands: Any) -> None:
    serve = commands.add_parser("serve", help="run a server", description="Runs a server until Ctrl-C or SIGTERM.")
    _add_server_flags(serve)
    serve.set_defaults(command=_serve)


def _add_flag(parser: argparse.ArgumentParser, *names: str, setting: str, help: str, **more: Any) -> None:
    """A flag that sets a setting, and nothing when it isn't given."""
    more.setdefault("metavar", "VALUE") if more.get("action") != "store_const" else None
    parser.add_argument(*names, dest=f"set:{setting}", default=None, help=help, **more)


def _add_common_flags(parser: argparse.ArgumentParser) -> None:
    """What says which cluster is meant."""
    parser.add_argument("-c", "--config", metavar="FILE", type=Path, help="read settings from FILE")
    parser.add_argument(
        "--set", metavar="KEY=VALUE", action="append", default=[], help="set any setting; may be repeated"
    )
    _add_flag(
        parser,
        "--namespace",
        "--ns",
        setting="clustering.namespace",
        help="cluster namespace (default: liftbridge-default)",
    )
    _add_flag(
        parser,
        "-n",
        "--nats-servers",
        setting="transport.nats.servers",
        help="URLs of NATS servers, by comma or repeated (default: nats://127.0.0.1:4222)",
        action="append",
    )


def _add_server_flags(parser: argparse.ArgumentParser) -> None:
    _add_common_flags(parser)
    flag = partial(_add_flag, parser)
    switch: dict[str, Any] = {"action": "store_const", "const": "true"}
    flag("--server-id", "--id", setting="clustering.server.id", help="ID of the server (default: random)")
    flag("-e", "--embedded-nats", setting="transport.nats.embedded", help="run a nats-server as a child", **switch)
    flag(
        "--embedded-nats-config",
        "--nc",
        setting="transport.nats.embedded.config",
        help="configuration file for the embedded nats-server",
        metavar="FILE",
    )
    flag("-d", "--data-dir", setting="data.dir", help="where to store everything", metavar="DIR")
    flag(
        "--host",
        setting="endpoint.grpc.host",
        help="host that clients connect to (default: 127.0.0.1, localhost with TLS)",
    )
    flag("-p", "--port", setting="endpoint.grpc.port", help="port for clients (default: 9292)", metavar="PORT")
    flag("--tls-cert", setting="endpoint.grpc.tls.cert", help="certificate file", metavar="FILE")
    flag("--tls-key", setting="endpoint.grpc.tls.key", help="key file", metavar="FILE")
    flag("-l", "--level", setting="logging.level", help="debug, info, warn or error (default: info)", metavar="LEVEL")
    flag(
        "--raft-bootstrap-seed",
        setting="clustering.raft.bootstrap.seed",
        help="begin a new cluster with this server, unless it has one already",
        **switch,
    )
    flag(
        "--raft-bootstrap-peers",
        setting="clustering.raft.bootstrap.peers",
        help="begin a new cluster with these server IDs and this one, by comma or repeated",
        action="append",
    )


def _add_demo(commands: Any) -> None:
    demo = commands.add_parser("demo", help="show in a minute what it does: record, publish, replay")
    demo.add_argument("-p", "--port", type=int, default=0, help="port for clients (default: any free one)")
    demo.add_argument("-d", "--data-dir", type=Path, help="keep the data here (default: a temporary directory)")
    demo.add_argument("--stay", action="store_true", help="leave the broker running until Ctrl-C")
    demo.set_defaults(command=_demo)


def _add_plugins(commands: Any) -> None:
    plugins = commands.add_parser("plugins", help="list what is installed and what the config chooses")
    plugins.add_argument("-c", "--config", metavar="FILE", type=Path, help="read settings from FILE")
    plugins.add_argument("--json", action="store_true", help="for programs")
    plugins.set_defaults(command=_plugins)


def _add_plugin(commands: Any) -> None:
    plugin = commands.add_parser("plugin", help="begin a plugin of your own")
    actions = plugin.add_subparsers(title="actions", metavar="ACTION", required=True)
    new = actions.add_parser(
        "new",
        help="write a project for a new plugin",
        description="Writes a project that can be installed, with the tests of its seam. Overwrites nothing.",
    )
    new.add_argument("name", metavar="NAME", help="of the project and its folder, like acme-storage-tape")
    new.add_argument("--seam", required=True, choices=SEAM_NAMES, help="what the plugin is to provide")
    new.add_argument("--directory", metavar="DIR", type=Path, default=Path(), help="where to put the folder")
    new.set_defaults(command=_new_plugin)


def _add_config(commands: Any) -> None:
    config = commands.add_parser("config", help="check a configuration, or show what holds in the end")
    config.add_argument("action", choices=("check", "show"), help="check: only say whether it is right")
    config.add_argument("file", nargs="?", type=Path, help="the file; without one, defaults and environment")
    config.set_defaults(command=_config)


def _add_dump_log(commands: Any) -> None:
    dump = commands.add_parser("dump-log", help="show a segment file, or a partition's directory, to a person")
    dump.add_argument("path", help="the file or directory")
    dump.add_argument("--values", action="store_true", help="whole keys and values instead of previews")
    dump.set_defaults(command=_dump_log)


def _add_cluster(commands: Any) -> None:
    cluster = commands.add_parser(
        "cluster",
        help="look at a cluster and change it",
        description="Asks the cluster in a namespace, over NATS. No server needs to run here.",
    )
    actions = cluster.add_subparsers(title="actions", metavar="ACTION", dest="action", required=True)
    status = actions.add_parser(
        "status",
        help="show servers and partitions",
        description="Shows servers and partitions. The exit code is 3 when a server is down or a partition offline.",
    )
    drain = actions.add_parser(
        "drain",
        help="make a server ready to stop",
        description="Hands over what a server leads and takes it out of the ISRs, where others can take over, until it "
        "starts again.",
    )
    remove = actions.add_parser(
        "remove",
        help="take a server out for good",
        description="Moves the replicas of a server, dead or alive, to others and removes it. Its ID can't come back.",
    )
    transfer = actions.add_parser(
        "transfer-leader",
        help="hand over the lead",
        description="Makes a server the leader of the metadata group, or of a partition.",
    )
    for action, default_s in ((status, 10.0), (drain, 60.0), (remove, 600.0), (transfer, 10.0)):
        _add_common_flags(action)
        action.add_argument(
            "--timeout", metavar="SECONDS", type=float, default=default_s, help="give up then (default: %(default)g)"
        )
        action.add_argument("--json", action="store_true", help="for programs")
        action.set_defaults(command=_cluster, server_id="", stream="", partition=0, accept_loss=False)
    for action in (drain, remove, transfer):
        action.add_argument("server_id", metavar="SERVER", help="its ID")
    for action in (remove, transfer):
        action.add_argument("--accept-loss", action="store_true", help="even if committed messages may be lost by it")
    transfer.add_argument("--stream", metavar="NAME", help="a partition of this stream, not the metadata group")
    transfer.add_argument("--partition", metavar="NUMBER", type=int, help="which one (default: 0)")


# --- the commands -----------------------------------------------------------------------------------------------------


def _serve(options: argparse.Namespace) -> int:
    plugins = PluginManager()
    settings = _load(plugins, options.config, _flags(options))
    _configure_logging(settings)
    for warning in settings.warnings:
        logging.getLogger(__name__).warning(warning)
    from liftbridge.running import run as run_server

    return run_server(settings, plugins)


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


def _demo(options: argparse.Namespace) -> int:
    from liftbridge.demo import run as run_demo

    return run_demo(port=options.port, data_dir=options.data_dir, stay=options.stay)


def _plugins(options: argparse.Namespace) -> int:
    plugins = PluginManager()
    settings = load(plugins.settings(), file=options.config)
    rows = [
        {
            "kind": str(offer.seam),
            "name": offer.provider.name,
            "chosen": offer.provider.name in chosen_names(settings, offer.seam),
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


def _new_plugin(options: argparse.Namespace) -> int:
    project = write_project(options.name, options.seam, options.directory)
    print(f"Wrote {project}. Next:\n  cd {project}\n  pip install -e '.[test]'\n  pytest")
    return 0


def chosen_names(settings: Mapping[str, Any], seam: Seam) -> Sequence[str]:
    """The names that the settings choose for a kind of provider."""
    value = settings[PROVIDER_SETTINGS[seam]]
    return (value,) if isinstance(value, str) else tuple(value)


def check_choices(settings: Mapping[str, Any], plugins: PluginManager) -> None:
    """Raises PluginNotFound for the first choice that nothing installed offers."""
    for seam in PROVIDER_SETTINGS:
        for name in chosen_names(settings, seam):
            plugins.provider(seam, name)


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


def _config(options: argparse.Namespace) -> int:
    plugins = PluginManager()
    settings = _load(plugins, options.file)
    for warning in settings.warnings:
        print(f"liftbridge: warning: {warning}", file=sys.stderr)
    if options.action == "check":
        print(f"{options.file or 'defaults and environment'}: ok")
        return 0
    for name, value in sorted(settings.items()):
        shown = _HIDDEN if value and name.endswith(_SECRETS) else _shown(value)
        print(f"{name} = {shown}    # {settings.sources.get(name, 'default')}")
    for template in settings.templates:
        print(f"templates.{template.name}.match = {template.match}")
        for name, value in sorted(template.settings.items()):
            print(f"templates.{template.name}.{name} = {_shown(value)}")
    return 0


def _shown(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return ", ".join(value) if isinstance(value, tuple) else str(value)


def _cluster(options: argparse.Namespace) -> int:
    from liftbridge.operating import ClusterQuestion
    from liftbridge.operating import run as run_question

    plugins = PluginManager()
    settings = _load(plugins, options.config, _flags(options))
    question = ClusterQuestion(
        action=options.action,
        server_id=options.server_id,
        stream=options.stream,
        partition=options.partition,
        accept_loss=options.accept_loss,
        timeout_s=options.timeout,
        as_json=options.json,
    )
    return run_question(question, settings, plugins)


def _dump_log(options: argparse.Namespace) -> int:
    if not os.path.exists(options.path):
        raise ConfigError(f"there is no {options.path}")
    if not PluginManager().dump_log(options.path, sys.stdout, values=options.values):
        raise ConfigError(f"{options.path} is neither a segment file nor a partition's directory")
    return 0

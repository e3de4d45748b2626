"""The flags of the commands for who runs servers, and the list of all commands.

argparse, because the server process is this process, and the friendlier libraries would stay in its memory.
"""

import argparse
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from liftbridge.cli import operators
from liftbridge.cli.names import CLIENT_COMMANDS
from liftbridge.config import parse_seconds
from liftbridge.errors import ConfigError
from liftbridge.plugin_template import SEAM_NAMES
from liftbridge.version import version


class CommandParser(argparse.ArgumentParser):
    """argparse, with its errors as ours: a line that says what is wrong, and one that says what helps."""

    def error(self, message: str) -> NoReturn:
        """Raises ConfigError."""
        raise ConfigError(f"{message}\ntry '{self.prog} --help'")


def read_command_line(arguments: Sequence[str]) -> argparse.Namespace:
    """``command`` is what the words ask for, None when they ask for nothing. Raises ConfigError for words that mean nothing,
    with what may have been meant."""
    parser = make_parser()
    commands = subparsers(parser)
    if arguments and not arguments[0].startswith("-") and arguments[0] not in commands:
        parser.error(f'there is no command "{arguments[0]}"{_did_you_mean(arguments[0], commands)}')
    options, unknown = parser.parse_known_args(arguments)
    if unknown:
        command = _innermost(parser, arguments)
        flags = [flag for action in command._actions for flag in action.option_strings]
        command.error(f'there is no "{unknown[0]}" here{_did_you_mean(unknown[0], flags)}')
    if options.command is None:
        options.command = partial(_show_help, parser)
    return options


def subparsers(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The commands, or the actions of a command, by name."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def _innermost(parser: argparse.ArgumentParser, words: Sequence[str]) -> argparse.ArgumentParser:
    """The parser of the command and action that the words begin with."""
    for word in words:
        parser = subparsers(parser).get(word, parser)
    return parser


def _did_you_mean(word: str, known: Iterable[str]) -> str:
    nearest = get_close_matches(word, known, n=1)
    return f'; did you mean "{nearest[0]}"?' if nearest else ""


def _show_help(parser: argparse.ArgumentParser, _options: argparse.Namespace) -> int:
    parser.print_help()
    return 0


def make_parser() -> argparse.ArgumentParser:
    """Every command and flag; the tests hold the reference to it."""
    parser = CommandParser(
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
    for name, help in CLIENT_COMMANDS.items():
        commands.add_parser(name, help=help, add_help=False)
    return parser


def _add_serve(commands: Any) -> None:
    serve = commands.add_parser("serve", help="run a server", description="Runs a server until Ctrl-C or SIGTERM.")
    _add_server_flags(serve)
    serve.set_defaults(command=operators.serve)


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
    demo = commands.add_parser(
        "demo",
        help="show in a moment what it does: record, publish, replay",
        description="Starts a broker of its own, creates a stream, publishes to it by NATS and by gRPC, replays it, and ends.",
    )
    demo.add_argument("-p", "--port", type=int, default=0, help="port for clients (default: any free one)")
    demo.add_argument("-d", "--data-dir", type=Path, help="keep the data here (default: a temporary directory)")
    demo.add_argument("--stay", action="store_true", help="leave the broker running until Ctrl-C")
    demo.set_defaults(command=operators.demo)


def _add_plugins(commands: Any) -> None:
    plugins = commands.add_parser(
        "plugins",
        help="list what is installed and what the config chooses",
        description="Lists what plugins offer: by kind and name, whether the config chooses it, and which distribution it is "
        "from.",
    )
    plugins.add_argument("-c", "--config", metavar="FILE", type=Path, help="read settings from FILE")
    plugins.add_argument("--json", action="store_true", help="for programs")
    plugins.set_defaults(command=operators.plugins)


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
    new.set_defaults(command=operators.new_plugin)


def _add_config(commands: Any) -> None:
    config = commands.add_parser(
        "config",
        help="check a configuration, or show what holds in the end",
        description="check: says what is wrong with a configuration, all at once. show: prints every setting as a line of a "
        "config file, with the place that it comes from as a comment.",
    )
    config.add_argument("action", choices=("check", "show"), help="what to do")
    config.add_argument("file", nargs="?", type=Path, help="the file; without one, defaults and environment")
    config.add_argument("--json", action="store_true", help="for programs")
    config.set_defaults(command=operators.config)


def _add_dump_log(commands: Any) -> None:
    dump = commands.add_parser(
        "dump-log",
        help="show segment files, or partitions' directories, to a person",
        description="Shows the messages in segment files, which may belong to a server that runs.",
    )
    dump.add_argument("paths", metavar="PATH", nargs="+", help="the file or directory")
    dump.add_argument("--values", action="store_true", help="whole keys and values instead of previews")
    dump.add_argument("--json", action="store_true", help="for programs, with whole keys and values")
    dump.set_defaults(command=operators.dump_log)


def _seconds(text: str) -> float:
    """``2.5`` or ``500ms``."""
    try:
        return parse_seconds(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f'"{text}" {error}') from None


def _partition(text: str) -> int:
    if not text.isdecimal() or int(text) > 2**31 - 1:
        raise argparse.ArgumentTypeError(f'"{text}" is no number of a partition')
    return int(text)


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
            "--timeout", metavar="SECONDS", type=_seconds, default=default_s, help="give up then (default: %(default)g)"
        )
        action.add_argument("--json", action="store_true", help="for programs")
        action.set_defaults(command=operators.cluster, server_id="", stream="", partition=None, accept_loss=False)
    for action in (drain, remove, transfer):
        action.add_argument("server_id", metavar="SERVER", help="its ID")
    for action in (remove, transfer):
        action.add_argument("--accept-loss", action="store_true", help="even if committed messages may be lost by it")
    transfer.add_argument("--stream", metavar="NAME", help="a partition of this stream, not the metadata group")
    transfer.add_argument("--partition", metavar="NUMBER", type=_partition, help="which one (default: 0)")

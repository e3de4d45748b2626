"""What every client command has: where the cluster is, how to get in, how long to wait."""

import asyncio
import difflib
import functools
import signal
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from liftbridge.cli.exits import Terminated
from liftbridge.cli.values import METADATA, SECONDS, SERVERS
from liftbridge.client import Client, Stream, Tls
from liftbridge.errors import LiftbridgeError, NotFound, Unavailable

SERVERS_VARIABLE = "LIFTBRIDGE_SERVERS"
#: A stream that was just created elsewhere may be unknown here for so long.
_KNOWN_AFTER_S = 0.3
_COMPLETION_S = 1.0

#: Gets an open client, and its arguments by name. Its docstring is the help.
ClientFunction = Callable[..., Coroutine[Any, Any, None]]


@dataclass(frozen=True, slots=True)
class Connection:
    """The shared options of one command line."""

    servers: tuple[str, ...]
    timeout_s: float
    tls: Tls | None
    call_metadata: dict[str, str]

    def client(self) -> Client:
        """Not connected yet."""
        return Client(self.servers, tls=self.tls, call_metadata=self.call_metadata, timeout_s=self.timeout_s)


def shared_options() -> list[click.Parameter]:
    """Of every command that speaks to a cluster."""
    path = click.Path(exists=True, dir_okay=False, path_type=Path)
    return [
        click.Option(
            ["--server", "-s", "servers"],
            type=SERVERS,
            default="localhost:9292",
            show_default=True,
            envvar=SERVERS_VARIABLE,
            show_envvar=True,
            metavar="HOST[:PORT],...",
            help="Servers to begin with; one that is up is enough.",
        ),
        click.Option(
            ["--timeout", "timeout_s"],
            type=SECONDS,
            default="5",
            show_default=True,
            metavar="SECONDS",
            help="Give up a call then.",
        ),
        click.Option(["--tls"], is_flag=True, help="Speak TLS; implied by the options for it."),
        click.Option(["--tls-ca"], type=path, help="Certificates of authorities to trust."),
        click.Option(["--tls-cert"], type=path, help="The client's certificate."),
        click.Option(["--tls-key"], type=path, help="Its key."),
        click.Option(["--tls-server-name"], metavar="NAME", help="The name in the server's certificate."),
        click.Option(
            ["--call-metadata"],
            type=METADATA,
            multiple=True,
            metavar="NAME=VALUE",
            help="Sent with every call, for servers or proxies that ask for credentials.",
        ),
    ]


def client_command(name: str, *, parent: click.Group | None = None) -> Callable[[ClientFunction], click.Command]:
    """Makes a command of a coroutine function; the shared options come last in its help."""

    def decorate(function: ClientFunction) -> click.Command:
        @functools.wraps(function)
        def run(**arguments: Any) -> None:
            asyncio.run(_until_terminated(_with_client(function, take_connection(arguments), arguments)))

        command = click.command(name)(run)
        command.params += shared_options()
        if parent is not None:
            parent.add_command(command)
        return command

    return decorate


def take_connection(arguments: dict[str, Any]) -> Connection:
    """Takes the shared options out of ``arguments``. Raises ConfigError."""
    certificate, key, ca = (arguments.pop(name) for name in ("tls_cert", "tls_key", "tls_ca"))
    server_name = arguments.pop("tls_server_name")
    wanted = arguments.pop("tls") or any((certificate, key, ca, server_name))
    return Connection(
        servers=arguments.pop("servers"),
        timeout_s=arguments.pop("timeout_s"),
        tls=Tls(ca=ca, certificate=certificate, key=key, server_name=server_name) if wanted else None,
        call_metadata=dict(arguments.pop("call_metadata")),
    )


async def _until_terminated(work: Coroutine[Any, Any, None]) -> None:
    """SIGTERM ends the work as Ctrl-C does: members leave their groups, and what a command made for itself goes."""
    task = asyncio.ensure_future(work)
    terminated = False

    def terminate() -> None:
        nonlocal terminated
        terminated = True
        task.cancel()

    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, terminate)
    try:
        await task
    except asyncio.CancelledError:
        if terminated:
            raise Terminated from None
        raise


def _what(tls: Tls | None) -> str:
    if tls is None:
        return "plain text (else: --tls)"
    own = "want one of ours (--tls-cert, --tls-key)" if tls.certificate is None else "trust ours (--tls-cert)"
    return f"TLS, with a certificate that is trusted (--tls-ca), and does it {own}"


async def _with_client(function: ClientFunction, connection: Connection, arguments: dict[str, Any]) -> None:
    client = connection.client()
    try:
        await client.__aenter__()
    except Unavailable as error:
        where = ", ".join(connection.servers)
        raise Unavailable(
            f"no server answers at {where} (tried for {connection.timeout_s:g} s)\n"
            f"is one running there, and does it speak {_what(connection.tls)}? "
            f"Name others with --server HOST:PORT or {SERVERS_VARIABLE}"
        ) from error
    try:
        await function(client, **arguments)
    finally:
        await client.close()


# --- streams by their names -------------------------------------------------------------------------------------------


async def find_stream(client: Client, name: str) -> Stream:
    """Raises NotFound, which says what streams there are."""
    streams = (await client.fetch_metadata()).streams
    if name not in streams:
        await asyncio.sleep(_KNOWN_AFTER_S)
        streams = (await client.fetch_metadata()).streams
    if name not in streams:
        raise NotFound(unknown_stream(name, sorted(streams)))
    return streams[name]


def unknown_stream(name: str, known: list[str]) -> str:
    """What to say of a name that isn't among those ``known``."""
    shown = [one for one in known if not one.startswith("__")]
    if not shown:
        return f"there is no stream {name}, nor any other: create it with 'liftbridge stream create {name}'"
    close = difflib.get_close_matches(name, known, n=1)
    meant = f" (did you mean {close[0]}?)" if close else ""
    more = f" and {len(shown) - 10} more" if len(shown) > 10 else ""
    return f"there is no stream {name}{meant}; there are: {', '.join(shown[:10])}{more}"


def check_partitions(stream: Stream, numbers: tuple[int, ...]) -> None:
    """Raises NotFound for a partition that the stream doesn't have."""
    count = len(stream.partitions)
    for number in numbers:
        if number >= count:
            raise NotFound(f"stream {stream.name} has no partition {number}: its partitions are 0 to {count - 1}")


def complete_stream(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """For shells: the names of streams that begin so. A cluster that doesn't answer has none."""
    del parameter

    async def names() -> list[str]:
        connection = take_connection(dict(context.params))
        async with Client(connection.servers, tls=connection.tls, timeout_s=_COMPLETION_S) as client:
            return sorted((await client.fetch_metadata()).streams)

    try:
        own = incomplete.startswith("__")  # the cluster's own streams are shown to who asks for them
        return [name for name in asyncio.run(names()) if name.startswith(incomplete) and name.startswith("__") == own]
    except (LiftbridgeError, KeyError):
        return []

"""The command line.

Here lives what reads arguments, shows answers and decides exit codes. What is asked and done lives elsewhere: in the
client library, in :mod:`liftbridge.operating`, in the server.

``entry`` is where a command line begins. ``parser`` and ``operators`` are the commands for who runs servers, in argparse;
``clients`` and the modules beside it those for who uses a cluster, in Click, imported when one is called: the server process
is this process, and would keep them.
"""

import sys
from collections.abc import Sequence
from typing import NoReturn

_INTERRUPTED = 130  # Exit.INTERRUPTED, before anything is imported


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """The entry point of the ``liftbridge`` command. Who presses Ctrl-C while it is still imported sees no traceback."""
    try:
        from liftbridge.cli import entry
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
    entry.main(argv)


def run(argv: Sequence[str]) -> int:
    """Runs one command line in this process and returns its exit code."""
    from liftbridge.cli import entry

    return entry.run(argv)

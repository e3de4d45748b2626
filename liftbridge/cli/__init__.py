"""The command line.

Here lives what reads arguments, shows answers and decides exit codes. What is asked and done lives elsewhere: in the
client library, in :mod:`liftbridge.operating`, in the server.

``entry`` is where a command line begins. ``parser`` and ``operators`` are the commands for who runs servers, in argparse;
``clients`` and the modules beside it those for who uses a cluster, in Click, imported when one is called: the server process
is this process, and would keep them.
"""

from liftbridge.cli.entry import main, run

__all__ = ["main", "run"]

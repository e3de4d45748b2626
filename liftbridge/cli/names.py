"""What decides, before anything is imported, which library reads a command line."""

#: The commands of clients, which :mod:`liftbridge.cli.clients` has, and what the list of commands says of each.
CLIENT_COMMANDS = {
    "stream": "create, look at, pause and delete streams",
    "publish": "publish arguments, lines or files",
    "subscribe": "show messages of a stream, from any position, as they come",
    "group": "look at a consumer group, or consume as a member",
    "cursor": "get and set offsets that the cluster remembers",
    "bench": "measure publishing and reading back",
    "completion": "print the script that completes commands in a shell",
}

#: Set by the scripts that complete commands, when they ask what fits.
COMPLETING = "_LIFTBRIDGE_COMPLETE"

"""The promises an ack can make. Apart from the leader that keeps them, so that metadata can name them without its IO."""

from enum import StrEnum


class Durability(StrEnum):
    """What an ack proves about power loss. A kill of the process loses nothing in any of them."""

    PAGE = "page"
    INTERVAL = "interval"
    SYNC = "sync"

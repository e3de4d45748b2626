"""What goes on failing, and when a person should hear of it."""

import logging
import time

logger = logging.getLogger(__name__)

#: Servers that fail over are back by then.
_LASTING_S = 5.0
_REMIND_S = 30.0


class Trouble:
    """Something that is tried again and again; ``what`` says what it is, as the beginning of a sentence.

    A failure is logged at info level; once they last, at warning level, now and then, and so is their end.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._began_s: float | None = None
        self._warned_s: float | None = None

    def failed(self, error: Exception) -> None:
        """It will be tried again."""
        now_s = time.monotonic()
        if self._began_s is None:
            self._began_s = now_s
        lasted_s = now_s - self._began_s
        if lasted_s >= _LASTING_S and (self._warned_s is None or now_s - self._warned_s >= _REMIND_S):
            self._warned_s = now_s
            logger.warning("%s: failing for %.0f s, and tried on: %s", self._what, lasted_s, error)
        else:
            logger.info("%s: tried again: %s", self._what, error)

    def over(self) -> None:
        """It succeeded."""
        if self._began_s is not None and self._warned_s is not None:
            logger.warning("%s: works again after %.0f s", self._what, time.monotonic() - self._began_s)
        self._began_s = self._warned_s = None

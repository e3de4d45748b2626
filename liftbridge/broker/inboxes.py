"""Names of ack inboxes: ``<namespace>.ack.<22 characters>``, as clients know them."""

import secrets
import string

_ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
_RANDOM_CHARACTERS = 12
_COUNTER_CHARACTERS = 10
#: The counter's last two digits.
_PAIRS = [high + low for high in _ALPHABET for low in _ALPHABET]


class InboxNames:
    """Hands out names that are unique in the whole system: a random part for this object, then a counter."""

    def __init__(self, namespace: str) -> None:
        token = "".join(secrets.choice(_ALPHABET) for _ in range(_RANDOM_CHARACTERS))
        self._token = f"{namespace}.ack.{token}"
        self._count = 0
        self._prefix = ""

    def next(self) -> str:
        pair = self._count % len(_PAIRS)
        if pair == 0:
            self._prefix = self._token + self._high_digits()
        self._count += 1
        return self._prefix + _PAIRS[pair]

    def _high_digits(self) -> str:
        number, digits = self._count // len(_PAIRS), ""
        for _ in range(_COUNTER_CHARACTERS - 2):
            number, digit = divmod(number, len(_ALPHABET))
            digits = _ALPHABET[digit] + digits
        return digits

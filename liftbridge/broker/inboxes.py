"""Names of ack inboxes: ``<namespace>.ack.<22 characters>``, as clients know them."""

import secrets
import string

_ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
_RANDOM_CHARACTERS = 12
_COUNTER_CHARACTERS = 10


class InboxNames:
    """Hands out names that are unique in the whole system: a random part for this object, then a counter."""

    def __init__(self, namespace: str) -> None:
        token = "".join(secrets.choice(_ALPHABET) for _ in range(_RANDOM_CHARACTERS))
        self._prefix = f"{namespace}.ack.{token}"
        self._count = 0

    def next(self) -> str:
        self._count += 1
        number, digits = self._count, []
        for _ in range(_COUNTER_CHARACTERS):
            number, digit = divmod(number, len(_ALPHABET))
            digits.append(_ALPHABET[digit])
        return self._prefix + "".join(reversed(digits))

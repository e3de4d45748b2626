"""Bytes as JSON has them: as text where they are text, else in base64, and never changed."""

import base64


def bytes_entry(name: str, data: bytes) -> dict[str, str]:
    """``{name: text}``, or ``{name_base64: ...}`` for what isn't UTF-8."""
    text = _text(data)
    return {f"{name}_base64": _base64(data)} if text is None else {name: text}


def header_value(data: bytes) -> str | dict[str, str]:
    """The text, or ``{"base64": ...}``."""
    text = _text(data)
    return {"base64": _base64(data)} if text is None else text


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _text(data: bytes) -> str | None:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None

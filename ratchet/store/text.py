"""Text for Postgres, which holds neither NUL nor lone surrogates. Programs print both."""

from collections.abc import Mapping
from typing import Any


def replace_unstorable(text: str) -> str:
    """The text with U+FFFD in place of what Postgres cannot hold."""
    if "\x00" in text:
        text = text.replace("\x00", "�")
    try:
        text.encode()
    except UnicodeEncodeError:
        text = "".join("�" if "\ud800" <= letter <= "\udfff" else letter for letter in text)
    return text


def replace_unstorable_in_json(value: Any) -> Any:
    """The JSON value with every string in it, keys too, made storable."""
    if isinstance(value, str):
        return replace_unstorable(value)
    if isinstance(value, Mapping):
        return {replace_unstorable(str(key)): replace_unstorable_in_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [replace_unstorable_in_json(item) for item in value]
    return value

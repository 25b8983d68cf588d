"""`--set name=value`: a setting that has no option of its own."""

from typing import Any

import orjson


class OverrideError(ValueError):
    """An override that names nothing, or whose form is wrong."""


def read_override(text: str, *, example: str) -> tuple[str, Any]:
    """Name and value; the value is JSON, or plain text where it is none. Raises OverrideError."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise OverrideError(f"{text!r} is not of the form name=value, like {example}.")
    try:
        return name, orjson.loads(value)
    except orjson.JSONDecodeError:
        return name, value

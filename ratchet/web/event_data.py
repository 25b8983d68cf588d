"""JSON as the data of a server-sent event."""

_LINE_ENDS = {ord(end): f"\\u{ord(end):04x}" for end in "\u0085\u2028\u2029"}
"""What JSON may hold as it is, and what ends a line for many readers of text, though not for the standard."""


def on_one_line(json: str) -> str:
    """The same JSON on one line, whoever counts the lines: a model may write what ends one."""
    return json.translate(_LINE_ENDS)

"""Inside the grading jail: compare two answers, which come as trees of known kinds and not as text.

Time and memory are bounded from outside; what `ratchet.notation` will not compute at all is told as `null`.
"""

import json

from ratchet.notation.comparison import is_equal
from ratchet.notation.evaluation import TooLargeError
from ratchet.notation.nodes import from_json


def compare(text: str) -> str:
    """What the child prints for a JSON list of two trees: true or false, or null where a value is too large."""
    one, other = json.loads(text)
    try:
        return json.dumps(is_equal(from_json(one), from_json(other)))
    except (TooLargeError, RecursionError):
        return json.dumps(None)


# Fills mpmath's caches, which each child inherits.
compare(json.dumps(['["constant", "pi", []]', '["call", "exp", [["number", "1/2", []]]]']))

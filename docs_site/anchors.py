"""What a heading is called in an address: as GitHub names it, so that one link leads there on the site and in the checkout."""

import re
from collections.abc import Callable


def anchor(heading: str, separator: str = "-") -> str:
    """The anchor of a heading, which is given as text or as Markdown."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", separator)


def slugify() -> Callable[[str, str], str]:
    """The function that Python-Markdown's `toc` asks; zensical.toml names this one."""
    return anchor

"""The page of the Python client, from its classes, their signatures and their docstrings."""

import inspect
import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

from docs_site.anchors import anchor
from docs_site.markdown import code, prose, table
from ratchet import client

INTRODUCTION = """# Python client

Made from `ratchet.client` of this version. [How it is used](../how-to/python-client.md) is the guide. `ratchet.Client` has the
methods of `ratchet.AsyncClient` for code without asyncio. Fields of results and requests stand under the
[schemas of the search service](http-search.md#schemas), whose names they have.
"""

_MODULE = re.compile(r"\b(?:[a-z_]+\.)+(?=[A-Za-z_])")
"""Where a name in an annotation comes from."""
_OPTIONS = re.compile(r"\*<class '(\w+)'>")
"""How Python writes `Unpack[SolveOptions]`."""


def page() -> str:
    """The whole page, in Markdown."""
    classes = [getattr(client, name) for name in client.__all__ if inspect.isclass(getattr(client, name))]
    ours = [each for each in classes if not hasattr(each, "model_fields")]
    ours.sort(key=lambda each: each not in (client.AsyncClient, client.Client))
    overview = table(
        ("class", "what it is"),
        ((f"[{code(each.__name__)}](#{anchor(each.__name__)})", _first(each)) for each in ours),
    )
    return "\n".join([INTRODUCTION, overview, *(_section(each) for each in ours)])


def _section(described: type) -> str:
    parts = [f"## {described.__name__}\n"]
    if not _is_options(described) and not is_dataclass(described):
        parts.append(_call(described.__name__, described))
    parts.append(f"{_paragraphs(described)}\n")
    if _is_options(described):
        parts.append(table(("option", "type"), _annotations(described)))
    elif is_dataclass(described):
        parts.append(
            table(("field", "type"), ((code(f.name), code(_type(f.type))) for f in fields(described)))
        )
    parts += [_method(described, name, member) for name, member in _members(described)]
    return "\n".join(parts)


def _members(described: type) -> Iterator[tuple[str, Any]]:
    """Public methods and properties of the class's own, in the order of the code."""
    for name, member in vars(described).items():
        if not name.startswith("_") and (inspect.isfunction(member) or isinstance(member, property)):
            yield name, member


def _method(owner: type, name: str, member: Any) -> str:
    # Two classes have methods of one name: each has an address of its own.
    head = f"### {owner.__name__}.{name}\n"
    if isinstance(member, property):
        kept = _type(inspect.signature(member.fget).return_annotation) if member.fget else "Any"
        return f"{head}\n```python\n{name}: {kept}\n```\n\n{_paragraphs(member)}\n"
    return f"{head}\n{_call(name, member)}\n{_paragraphs(member)}\n"


def _call(name: str, called: Any) -> str:
    """How it is called, a line a parameter where one line does not hold it."""
    signature = inspect.signature(called)
    given = [_parameter(each) for each in signature.parameters.values() if each.name != "self"]
    for at, each in enumerate(signature.parameters.values()):
        if each.kind is inspect.Parameter.KEYWORD_ONLY:
            given.insert(at - ("self" in signature.parameters), "*")
            break
    ends = signature.return_annotation
    returned = "" if inspect.isclass(called) or ends is inspect.Signature.empty else f" -> {_type(ends)}"
    waited = "await " if inspect.iscoroutinefunction(called) else ""
    line = f"{waited}{name}({', '.join(given)}){returned}"
    if len(line) > 88:
        line = f"{waited}{name}(\n" + "".join(f"    {each},\n" for each in given) + f"){returned}"
    return f"```python\n{line}\n```\n"


def _parameter(parameter: inspect.Parameter) -> str:
    stars = "**" if parameter.kind is inspect.Parameter.VAR_KEYWORD else ""
    default = "" if parameter.default is inspect.Parameter.empty else f" = {parameter.default!r}"
    return f"{stars}{parameter.name}: {_type(parameter.annotation)}{default}"


def _type(annotation: Any) -> str:
    """An annotation as one writes it, without the modules of its names."""
    written = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    return _OPTIONS.sub(r"Unpack[\1]", _MODULE.sub("", written))


def _annotations(described: type) -> Iterator[tuple[str, str]]:
    return ((code(name), code(_type(kind))) for name, kind in inspect.get_annotations(described).items())


def _is_options(described: type) -> bool:
    return issubclass(described, dict)


def _first(described: type) -> str:
    return _paragraphs(described).split("\n\n")[0].replace("\n", " ").replace("|", "&#124;")


def _paragraphs(described: Any) -> str:
    return prose(inspect.getdoc(described) or "")

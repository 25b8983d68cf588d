"""Schemas of an OpenAPI document in words: what a field may hold, and what it means."""

from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from docs_site.anchors import anchor
from docs_site.markdown import cell, code, prose, table

Schema = Mapping[str, Any]


def sections(schemas: Mapping[str, Schema]) -> Iterator[str]:
    """A section for each schema, in the order of their names."""
    for name, schema in sorted(schemas.items()):
        yield f"### {name}\n\n{prose(schema.get('description', ''))}\n\n{fields(schema)}"


def fields(schema: Schema) -> str:
    """The fields of an object, or the values of an enumeration."""
    properties = schema.get("properties")
    if properties is None:
        return f"{kind(schema)}\n"
    required = schema.get("required", ())
    return table(
        ("field", "type", "default", "meaning"),
        (
            (code(name), kind(each), _default(name, each, required), cell(each.get("description", "")))
            for name, each in properties.items()
        ),
    )


def kind(schema: Schema) -> str:
    """What a value may be, as Markdown for a cell."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{anchor(name)})"
    for several in ("anyOf", "oneOf", "allOf"):
        if several in schema:
            return " or ".join(dict.fromkeys(kind(each) for each in schema[several]))
    if "enum" in schema:
        return ", ".join(code(str(each)) for each in schema["enum"])
    if "const" in schema:
        return code(str(schema["const"]))
    of = schema.get("type", "anything")
    if of == "array":
        return f"list of {kind(schema.get('items', {}))}{_range(schema, 'minItems', 'maxItems', ' items')}"
    if of == "object":
        values = schema.get("additionalProperties")
        return f"object of {kind(values)}" if isinstance(values, Mapping) and values else "object"
    if of == "string":
        text = schema.get("format", of) + _range(schema, "minLength", "maxLength", " characters")
        return f"{text}, {code(schema['pattern'])}" if "pattern" in schema else text
    return f"{of}{_bounds(schema)}"


def _range(schema: Schema, least: str, most: str, unit: str) -> str:
    low, high = schema.get(least), schema.get(most)
    if high is None:
        return f", from {low}{unit}" if low else ""
    return f", {low or 0} to {high:,}{unit}"


def _bounds(schema: Schema) -> str:
    """Of a number."""
    words = (
        ("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤"), ("exclusiveMaximum", "&lt;"),
    )  # fmt: skip
    found = [f"{sign} {schema[name]:g}" if schema[name] < 1e6 else f"{sign} {schema[name]:,.0f}"
             for name, sign in words if name in schema]  # fmt: skip
    return f" {', '.join(found)}" if found else ""


def _default(name: str, schema: Schema, required: object) -> str:
    if isinstance(required, list | tuple) and name in required:
        return "required"
    if "default" not in schema:
        return ""
    default = schema["default"]
    return code(orjson.dumps(default).decode())

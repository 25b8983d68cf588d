"""The pages of the HTTP API, from the apps' own OpenAPI documents. No service and no store runs for it."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson

from docs_site import ROOT
from docs_site.anchors import anchor
from docs_site.http_schemas import kind, sections
from docs_site.markdown import cell, code, prose, table
from ratchet.settings import PolicySettings, PrmSettings, SandboxSettings, SearchSettings, TrainerSettings
from ratchet.solutions.step_formats import few_shot
from ratchet.web.door import OPEN
from services.policy.app import build_app as policy
from services.policy.engines.transformers import TransformersEngine
from services.prm.app import build_app as prm
from services.sandbox.app import build_app as sandbox
from services.sandbox.jail import Isolation
from services.sandbox.zygotes import Level
from services.search.access import SOLVE_ROUTES
from services.search.app import build_app as search
from services.trainer.app import build_app as trainer

OF_STORE = ("search", "trainer")
METHODS = ("get", "post", "put", "patch", "delete")

HEAD = """# HTTP API: {service}

{summary}

Made from the service's OpenAPI document, which it serves itself at `/openapi.json`, and which is here as
[{service}.json](openapi/{service}.json). Callers send {secret}.
Errors are problem documents (RFC 9457): [ProblemDocument](#problemdocument).
"""
OF_CALLER = "an [API key](../explanation/security.md#the-door) (`Authorization: Bearer KEY`); the scope stands beside a route"
OF_SERVICE = "the [services' token](../explanation/security.md#the-door) (`Authorization: Bearer TOKEN`)"


def documents() -> dict[str, dict[str, Any]]:
    """The OpenAPI document of each service."""
    # What is built here loads nothing and connects to nothing before it is started.
    engine = TransformersEngine(ROOT / "models/nano/policy", "nano", max_model_len=256, max_num_seqs=1)
    level = Level(Isolation.NAMESPACES, bwrap=None, reason=None)
    apps = {
        "search": search(SearchSettings()),
        "trainer": trainer(TrainerSettings()),
        "policy": policy(PolicySettings(), engine, few_shot()),
        "prm": prm(PrmSettings()),
        "sandbox": sandbox(SandboxSettings(), level),
    }
    return {name: app.openapi() for name, app in apps.items()}


def write(folder: Path) -> None:
    """Write a page and the document for each service into `folder`."""
    (folder / "openapi").mkdir(parents=True, exist_ok=True)
    for service, document in documents().items():
        (folder / f"http-{service}.md").write_text(page(service, document))
        (folder / "openapi" / f"{service}.json").write_bytes(
            orjson.dumps(document, option=orjson.OPT_INDENT_2)
        )


def page(service: str, document: Mapping[str, Any]) -> str:
    """One service's page, in Markdown."""
    operations = list(_operations(document))
    overview = table(
        ("route", "what it does", "who may"),
        (
            (
                f"[{code(route)}](#{anchor(route)})",
                cell(operation.get("summary", "")),
                who_may(service, route),
            )
            for route, operation in operations
        ),
    )
    secret = OF_CALLER if service in OF_STORE else OF_SERVICE
    head = HEAD.format(service=service, summary=document["info"].get("summary", ""), secret=secret)
    parts = [head, overview, *(_section(service, *each) for each in operations), "## Schemas\n"]
    return "\n".join([*parts, *sections(document["components"]["schemas"])])


def who_may(service: str, route: str) -> str:
    """Which key a route asks for."""
    if route in OPEN:
        return "anybody"
    if service not in OF_STORE:
        return "services"
    return "`solve`, `admin`" if service == "search" and route in SOLVE_ROUTES else "`admin`"


def _operations(document: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Method and path of each route, with what the document says of it; those for operators come last."""
    found = [
        (f"{method.upper()} {path}", item[method])
        for path, item in document["paths"].items()
        for method in METHODS
        if method in item
    ]
    yield from sorted(found, key=lambda each: "operations" in each[1].get("tags", ()))


def _section(service: str, route: str, operation: Mapping[str, Any]) -> str:
    parts = [f"## {route}\n", prose(operation.get("description") or operation.get("summary", "")) + "\n"]
    if parameters := operation.get("parameters"):
        parts.append(table(("parameter", "in", "type", "meaning"), map(_parameter, parameters)))
    if body := operation.get("requestBody"):
        (content,) = body["content"].values()
        parts.append(f"Body: {kind(content['schema'])}{'' if body.get('required') else ', or none'}.\n")
        if examples := content.get("examples"):
            parts.append(_example(next(iter(examples.values()))["value"]))
    parts.append(table(("status", "meaning", "body"), map(_response, sorted(operation["responses"].items()))))
    return "\n".join(parts)


def _example(value: object) -> str:
    return f"```json\n{orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()}\n```\n"


def _parameter(parameter: Mapping[str, Any]) -> tuple[str, str, str, str]:
    required = " (required)" if parameter.get("required") and parameter["in"] != "path" else ""
    schema = parameter.get("schema", {})
    default = schema.get("default")
    note = "" if default is None else f" Default: {code(str(default))}."
    return (
        code(parameter["name"]),
        parameter["in"] + required,
        kind(schema),
        cell(parameter.get("description", "")) + note,
    )


def _response(response: tuple[str, Mapping[str, Any]]) -> tuple[str, str, str]:
    status, said = response
    bodies = {
        kind(content["schema"]) if content.get("schema") else code(media)
        for media, content in said.get("content", {}).items()
    }
    return status, cell(said.get("description", "")), " or ".join(sorted(bodies))

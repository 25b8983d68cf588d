"""`ratchet verify`: re-executes a proof bundle offline, in a jail of our own, and says what holds and what does not.

What is checked, and what cannot be, is told in ratchet/client/proofs.py.
"""

import contextlib
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from pydantic import ValidationError
from rich.console import Console
from rich.text import Text

from ratchet.cli.display import clean
from ratchet.cli.session import Interrupts, run
from ratchet.client.proofs import check_proof
from ratchet.contracts.search import Proof
from ratchet.solutions.proof import Check

MAX_BUNDLE_BYTES = 64 * 2**20


def verify(
    bundle: Annotated[Path, typer.Argument(metavar="PROOF", help="A proof bundle, as JSON.")],
    json: Annotated[bool, typer.Option("--json", help="Print only the findings, as JSON.")] = False,
) -> None:
    """Check a proof bundle. Exit code 0: all of it holds, 1: something does not, 2: no bundle, 3: no jail."""
    document, proof = read_bundle(bundle)
    console = Console(stderr=json)

    async def command(_: Interrupts) -> int:
        checks: list[Check] = []
        async with contextlib.aclosing(check_proof(document, proof)) as found:
            async for check in found:
                checks.append(check)
                mark = Text("holds  ", "green") if check.holds else Text("FAILS  ", "bold red")
                console.print(mark + Text(f"{check.name}: {clean(check.detail)}"), soft_wrap=True)
        holds = all(check.holds for check in checks)
        if json:
            findings = {
                "bundle": str(bundle),
                "search": proof.search,
                "answer": proof.answer,
                "holds": holds,
                "checks": [{"name": c.name, "holds": c.holds, "detail": c.detail} for c in checks],
            }
            print(orjson.dumps(findings).decode(), flush=True)
        else:
            failing = sum(not check.holds for check in checks)
            words = "All of it holds." if holds else f"{failing} of {len(checks)} checks fail."
            console.print(
                Text(f"Answer {clean(proof.answer)}. {words}", "bold green" if holds else "bold red")
            )
        return 0 if holds else 1

    run(command)


def read_bundle(path: Path) -> tuple[dict[str, Any], Proof]:
    """The JSON object as it is, and as a Proof. Raises typer.BadParameter."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BUNDLE_BYTES + 1)
    except OSError as error:
        raise typer.BadParameter(f"{path}: {error.strerror}.", param_hint="PROOF") from None
    if len(content) > MAX_BUNDLE_BYTES:
        raise typer.BadParameter(f"{path}: larger than {MAX_BUNDLE_BYTES} bytes.", param_hint="PROOF")
    try:
        document = orjson.loads(content)
        if isinstance(document, dict) and document.get("format") == "ratchet-proof/1":
            raise typer.BadParameter(
                f"{path}: made by Ratchet 0.1, whose bundles have other fields. Verify it with that version.",
                param_hint="PROOF",
            )
        return document, Proof.model_validate(document)
    except orjson.JSONDecodeError as error:
        raise typer.BadParameter(f"{path}: not valid JSON: {error.msg}.", param_hint="PROOF") from None
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "the document"
        raise typer.BadParameter(
            f"{path}: not a proof bundle: {clean(field)}: {first['msg']}.", param_hint="PROOF"
        ) from None


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command()(verify)

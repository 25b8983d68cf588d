"""`python -m benchmarks.tables`: write the tables of all documents. `--check` only says which are not up to date."""

import sys
from typing import Annotated

import typer

from benchmarks.keep import ROOT, read_results
from benchmarks.tables.definitions import TABLES
from benchmarks.tables.documents import documents, filled


def main(
    check: Annotated[bool, typer.Option("--check", help="Write nothing; fail if a table is old.")] = False,
) -> None:
    """Write the tables of the documents from the kept results."""
    results = read_results()
    old = False
    for file in documents():
        text = file.read_text()
        made = filled(text, TABLES, results, file.parent)
        if made == text:
            continue
        old = True
        print(f"{'not up to date' if check else 'written'}: {file.relative_to(ROOT)}", file=sys.stderr)
        if not check:
            file.write_text(made)
    raise typer.Exit(check and old)


if __name__ == "__main__":
    typer.run(main)

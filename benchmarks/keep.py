"""Keeps what a program measured: `python -m benchmarks.keep NAME --what "…" -- COMMAND`.

Runs the command, shows its output, and writes its last line (one JSON object, as every benchmark, `ratchet eval`, `ratchet
rounds run` and `make compose-test` print) into `benchmarks/results/NAME.json`, with the command, the commit, the seed, the
machine and the date. `python -m benchmarks.tables` then makes the tables of the documents from these files.

Limits: a command that fails keeps nothing. Nobody looks whether the machine was idle: say it with `--beside`.
"""

import json
import os
import platform
import shlex
import subprocess
import sys
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import BaseModel, ConfigDict, Field

ROOT = Path(__file__).parents[1]
FOLDER = Path(__file__).parent / "results"
BY_PROGRAM = "the program's own output"
"""Provenance of a result that this program has kept."""


class Result(BaseModel):
    """One measurement: a file in `benchmarks/results/`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    what: str = Field(min_length=1, description="The question that it answers, in one line.")
    command: str = Field(min_length=1, description="What makes it again.")
    commit: str = Field(
        pattern=r"^[0-9a-f]{40}(\+changes)?$",
        description="The code that was measured; `+changes`: with changes that were not committed. Of a transcribed result: "
        "where its figures were first written down.",
    )
    seed: int | None = Field(
        description="None: the program draws nothing at random, or does not say its seed."
    )
    machine: str = Field(min_length=1)
    date: date
    provenance: str = Field(min_length=1, description="Where the figures come from.")
    figures: dict[str, Any] = Field(
        min_length=1,
        description="The JSON object that the program printed: values with their sample sizes and 95 % intervals.",
    )

    @property
    def transcribed(self) -> bool:
        """Whether the figures were copied from a document, and the program's output is lost."""
        return self.provenance != BY_PROGRAM


def read_results(folder: Path = FOLDER) -> dict[str, Result]:
    """All kept results by name. Raises pydantic's ValidationError for a file that is not a result."""
    return {
        file.stem: Result.model_validate_json(file.read_bytes()) for file in sorted(folder.glob("*.json"))
    }


def write_result(result: Result, file: Path) -> None:
    """Write the file as the repository keeps it: indented, one final newline."""
    file.write_text(json.dumps(result.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n")


def last_object(output: str) -> dict[str, Any]:
    """The JSON object on the last line that is not empty. Raises ValueError where there is none."""
    lines = output.strip().splitlines()
    found = json.loads(lines[-1]) if lines else None
    if not isinstance(found, dict) or not found:
        raise ValueError("the last line is no JSON object")
    return found


def current_commit() -> str:
    """The commit that is checked out; `+changes` where tracked files differ from it."""
    head = _git("rev-parse", "HEAD")
    return f"{head}+changes" if _git("status", "--porcelain", "--untracked-files=no") else head


def _git(*arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.strip()


def this_machine() -> str:
    """Cores, processor, memory and kernel, as far as they matter to a measurement."""
    cpuinfo = Path("/proc/cpuinfo").read_text()
    models = [
        line.partition(":")[2].strip() for line in cpuinfo.splitlines() if line.startswith("model name")
    ]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores, processor = len(os.sched_getaffinity(0)), models[0] if models else platform.machine()
    return f"{cores} cores ({processor}), {memory:.0f} GB, kernel {platform.release()}"


def run_and_show(command: list[str]) -> str:
    """Run the command from the repository's root, show its output as it comes, and return it.

    `python` and `ratchet` are those of this environment, also where it was not activated. Raises
    subprocess.CalledProcessError when the command fails.
    """
    lines = []
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with subprocess.Popen(
        command, cwd=ROOT, env=os.environ | {"PATH": path}, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(line)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return "".join(lines)


def keep(
    name: Annotated[str, typer.Argument(help="Name of the file in benchmarks/results, without .json.")],
    command: Annotated[list[str], typer.Argument(help="What to run, after `--`.")],
    what: Annotated[
        str | None,
        typer.Option(help="The question it answers; may be left out for a name that is kept already."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Where the program's output does not say it.")] = None,
    beside: Annotated[str | None, typer.Option(help="What else ran on the machine.")] = None,
) -> None:
    """Run a program and keep what it measured."""
    file = FOLDER / f"{name}.json"
    question = what or (Result.model_validate_json(file.read_bytes()).what if file.is_file() else None)
    if question is None:
        raise typer.BadParameter(f"{name} is new: say what it measures.", param_hint="--what")
    commit = current_commit()
    try:
        figures = last_object(run_and_show(command))
    except (subprocess.CalledProcessError, ValueError) as error:
        print(f"Nothing is kept: {error}.", file=sys.stderr)
        raise typer.Exit(1) from None
    machine = this_machine()
    result = Result(
        what=question,
        command=shlex.join(command),
        commit=commit,
        seed=figures.get("seed", seed),
        machine=f"{machine}; {beside}" if beside else machine,
        date=datetime.now(UTC).date(),
        provenance=BY_PROGRAM,
        figures=figures,
    )
    write_result(result, file)
    print(
        f"Kept in {file.relative_to(ROOT)}; `python -m benchmarks.tables` updates the documents.",
        file=sys.stderr,
    )


if __name__ == "__main__":
    typer.run(keep)

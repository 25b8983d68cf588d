"""The dependencies in pyproject.toml: vLLM's list is the wheel's own, and every pinned version is the one of the images."""

import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from scripts.requirements import PYPROJECT, WHEEL, kept, pin, with_list

ROOT = Path(__file__).parents[2]


def test_the_list_of_vllm_is_the_one_of_its_wheel() -> None:
    try:
        found = importlib.metadata.distribution(WHEEL)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"{WHEEL} is not installed here")
    text = PYPROJECT.read_text()
    assert f"vllm=={found.version}" == pin("vllm", text)
    assert with_list(text, kept(found.requires or [])) == text


def test_of_the_wheels_requirements_cuda_packages_and_extras_are_left_out() -> None:
    wheel = [
        "torchvision; platform_machine != 'riscv64'",
        "torch==2.13.0+cpu",
        "regex",
        'datasets; extra == "bench"',
        'Six>=1.16.0; python_version > "3.11"',
        "regex",
    ]
    assert kept(wheel) == ["regex", "Six>=1.16.0; python_version > '3.11'"]


def test_a_list_without_its_marks_is_not_guessed() -> None:
    with pytest.raises(ValueError, match="Generated"):
        with_list("[project]\n", ["regex"])


def test_the_install_script_is_told_one_version() -> None:
    command = [sys.executable, str(ROOT / "scripts/requirements.py"), "pin", "torch"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert re.fullmatch(r"torch==\d+\.\d+\.\d+\n", told)
    with pytest.raises(LookupError, match="fastapi 0 times"):
        pin("fastapi", PYPROJECT.read_text())


def test_pinned_versions_are_those_of_the_images() -> None:
    project = tomllib.loads(PYPROJECT.read_text())["project"]
    lines = (ROOT / "deploy/constraints.txt").read_text().splitlines()
    images = dict(line.split("==") for line in lines if "==" in line)
    extras = project["optional-dependencies"]
    pinned = [
        re.fullmatch(r"([\w.-]+)==([^; ]+)", each)
        for each in [*extras["models"], *extras["cpu"], *extras["sandbox"]]
    ]
    different = {each[1]: each[2] for each in pinned if each and images.get(each[1], each[2]) != each[2]}
    assert different == {}

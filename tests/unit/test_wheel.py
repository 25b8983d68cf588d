"""The wheel: it brings everything, under one top-level name."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds what an installation of the wheel holds."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def test_the_wheel_installs_one_top_level_package(site: Path) -> None:
    assert [each.name for each in site.iterdir() if not each.name.endswith(".dist-info")] == ["ratchet"]


def test_the_wheel_brings_all_files_of_the_services_and_the_weights_of_nano(site: Path) -> None:
    def files(folder: Path) -> set[str]:
        every = (file for file in folder.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
        return {str(file.relative_to(folder)) for file in every}

    assert files(site / "ratchet/bundled/services") == files(ROOT / "services")
    assert files(site / "ratchet/models/nano") == files(ROOT / "models/nano/policy")


def test_an_installed_stack_starts_its_own_services_beside_a_strangers(site: Path, tmp_path: Path) -> None:
    stranger = tmp_path / "services"
    stranger.mkdir()
    (stranger / "__init__.py").write_text("raise SystemExit('a stranger')")
    start = (
        "import os, subprocess, sys\n"
        "from ratchet.stack.services import service_command, service_environment\n"
        "command, environment = service_command('sandbox.container'), os.environ | service_environment()\n"
        "sys.exit(subprocess.run(command, env=environment).returncode)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", start],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site), "RATCHET_SOCKET": ""},
        capture_output=True,
        text=True,
    )
    assert "the sandbox in a container needs RATCHET_SOCKET" in done.stderr, done.stderr

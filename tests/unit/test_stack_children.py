"""What the local stack starts, without starting it: each child gets the settings that it reads, and our `services`."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from ratchet.settings import (
    PolicySettings,
    PrmSettings,
    SandboxSettings,
    SearchSettings,
    Settings,
    StoreSettings,
    TrainerSettings,
)
from ratchet.stack import services
from ratchet.stack.children import Plan, children
from ratchet.stack.config import PORTS, SERVICES, StackConfig, StackUrls, worker_names
from ratchet.stack.postgres import Postgres
from ratchet.stack.services import service_command, service_environment, services_folder
from ratchet.stack.valkey import Valkey
from services.sandbox.container import ContainerSettings

ROOT = Path(__file__).parents[2]
READ_BY: dict[str, type[Settings]] = {
    "migrate": StoreSettings,
    "sandbox": SandboxSettings,
    "policy": PolicySettings,
    "prm": PrmSettings,
    "search": SearchSettings,
    "trainer": TrainerSettings,
    "search-worker-1": SearchSettings,
}


def plan(folder: Path, config: StackConfig) -> Plan:
    names = [*PORTS, *worker_names(config.search_workers)]
    ports = {name: 20_000 + number for number, name in enumerate(names)}
    addresses = {name: f"http://127.0.0.1:{ports[name]}" for name in SERVICES}
    urls = StackUrls(
        **addresses, database="postgresql+asyncpg://there", redis="redis://there", key="k", token="t"
    )
    return Plan(config, folder, ports, urls, Postgres(folder, 20_100), Valkey(folder, 20_101))


@pytest.mark.parametrize("sandbox", ["process", "docker"])
def test_no_child_is_given_a_setting_that_it_does_not_read(tmp_path: Path, sandbox: str) -> None:
    config = StackConfig(model="nano", engine="auto", sandbox="docker" if sandbox == "docker" else "process")
    read_by = READ_BY | ({"sandbox": ContainerSettings} if sandbox == "docker" else {})
    ours = {spec.name: spec for spec in children(plan(tmp_path, config)) if spec.name in read_by}
    assert ours.keys() == read_by.keys()
    unread = {
        f"{name}: {variable}"
        for name, spec in ours.items()
        for variable in spec.env
        if variable.startswith("RATCHET_")
        and variable.removeprefix("RATCHET_").lower() not in read_by[name].model_fields
    }
    assert unread == set()


def test_workers_run_only_where_all_that_they_need_does(tmp_path: Path) -> None:
    few = StackConfig(services=("search", "policy", "sandbox"), search_workers=2)
    assert [spec.name for spec in children(plan(tmp_path, few))] == [
        "postgres",
        "valkey",
        "migrate",
        "sandbox",
        "policy",
        "search",
    ]
    every = replace(few, services=SERVICES)
    assert [spec.name for spec in children(plan(tmp_path, every))][-2:] == [
        "search-worker-1",
        "search-worker-2",
    ]


def test_a_service_is_ours_in_a_folder_with_another_package_of_that_name(tmp_path: Path) -> None:
    decoy = tmp_path / "services"
    (decoy / "sandbox").mkdir(parents=True)
    (decoy / "__init__.py").write_text("raise SystemExit('not ours')")
    (tmp_path / "elsewhere").mkdir()
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "elsewhere")}
    environment |= service_environment(environment)
    done = subprocess.run(
        [sys.executable, "-c", "import services, sys; print(services.__file__); print(sys.path[1])"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == [str(ROOT / "services/__init__.py"), str(tmp_path / "elsewhere")]
    assert service_command("sandbox")[1:] == ["-m", "services.sandbox"]


def test_an_installed_ratchet_finds_the_services_that_it_brought(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundled = tmp_path / "ratchet/bundled"
    (tmp_path / "services").mkdir()
    monkeypatch.setattr(services, "_FOLDERS", (bundled, tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match="bundled"):
        services_folder()
    (bundled / "services").mkdir(parents=True)
    monkeypatch.setattr(services, "_FOLDERS", (bundled, tmp_path))
    assert services_folder() == bundled

"""Settings: passwords from files, messages, and a documentation that has all of them."""

import json
import re
from pathlib import Path

import pytest
import yaml

from ratchet import secret_files
from ratchet.settings import (
    PolicySettings,
    PrmSettings,
    SandboxSettings,
    SearchSettings,
    Settings,
    StoreSettings,
    TrainerSettings,
    load,
)
from tests.settings_table import ROLES, rows

ROOT = Path(__file__).parents[2]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
READ_BY: dict[str, type[Settings]] = {
    "migrate": StoreSettings,
    "sandbox": SandboxSettings,
    "policy": PolicySettings,
    "prm": PrmSettings,
    "search": SearchSettings,
    "search-worker": SearchSettings,
    "trainer": TrainerSettings,
}


def test_documentation_has_every_setting_with_its_default() -> None:
    documented = (ROOT / "docs/reference/configuration.md").read_text().splitlines()
    assert [row for row in rows() if row not in documented] == []


def test_every_setting_is_read() -> None:
    code = "".join(
        file.read_text() for room in ("ratchet", "services") for file in (ROOT / room).rglob("*.py")
    )
    read = set(re.findall(r"[sS]ettings\)?\.([a-z0-9_]+)", code))
    unread = {name for _, kind in ROLES for name in kind.model_fields} - read
    # The settings read these themselves: the URLs have the passwords, `door_key` and `service_token` what is in the others.
    assert unread == {
        *("database_password_file", "redis_password_file"),
        *("admin_key_file", "service_token_file"),
    }


@pytest.mark.parametrize("service", READ_BY)
def test_the_compose_file_sets_only_what_its_service_reads(service: str) -> None:
    names = {name for name in COMPOSE[service]["environment"] if name.startswith("RATCHET_")}
    assert {name.removeprefix("RATCHET_").lower() for name in names} <= READ_BY[service].model_fields.keys()


def test_the_images_set_only_what_a_service_reads() -> None:
    known = {name for _, kind in ROLES for name in kind.model_fields}
    names = re.findall(r"RATCHET_([A-Z_]+)=", (ROOT / "Dockerfile").read_text())
    assert names
    assert {name.lower() for name in names} <= known


def test_every_variable_of_the_compose_file_is_in_the_example_and_no_other() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    used = dict(re.findall(r"\$\{([A-Z_]+):?-([^}]*)\}", text))
    example = dict(re.findall(r"^# ([A-Z_]+)=(.*)$", (ROOT / ".env.example").read_text(), re.MULTILINE))
    # Of COMPOSE_FILE Compose itself knows.
    assert used.keys() == example.keys() - {"COMPOSE_FILE"}
    # SECRETS and PROBLEMS show a folder in place of the volume.
    assert {
        name: value for name, value in used.items() if name not in ("SECRETS", "PROBLEMS")
    }.items() <= example.items()


def test_password_comes_from_its_file(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("a/b@c:d\n")
    settings = StoreSettings(
        database_password_file=file,
        redis_password_file=file,
        database_url="postgresql+asyncpg://ratchet:old@postgres:5432/ratchet",
        redis_url="redis://redis:6379/0",
    )
    assert settings.database_url == "postgresql+asyncpg://ratchet:a%2Fb%40c%3Ad@postgres:5432/ratchet"
    assert settings.redis_url == "redis://:a%2Fb%40c%3Ad@redis:6379/0"


def test_missing_password_file_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RATCHET_DATABASE_PASSWORD_FILE", str(tmp_path / "nowhere"))
    with pytest.raises(SystemExit, match=r"RATCHET_DATABASE_URL.*nowhere"):
        load(SearchSettings)


def test_wrong_value_is_a_message_and_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RATCHET_CONCURRENCY", "none")
    with pytest.raises(SystemExit, match="RATCHET_CONCURRENCY"):
        load(SearchSettings)


def test_secrets_are_made_once_and_the_header_sends_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets, tokens = tmp_path / "secrets", tmp_path / "tokens"
    for folder in (secrets, tokens):
        folder.mkdir()
    (secrets / "redis_password").write_text("mine")
    monkeypatch.setattr("sys.argv", ["secret_files", str(secrets), str(tokens)])
    secret_files.main()
    first = {file: file.read_text() for folder in (secrets, tokens) for file in folder.iterdir()}
    assert sorted(file.name for file in first) == [
        *("admin_header", "admin_key", "postgres_password", "redis_password", "service_token"),
    ]
    assert first[secrets / "redis_password"] == "mine"
    assert len(set(first.values())) == len(first)
    for file, text in first.items():
        assert len(text.strip()) >= 32 or file.name == "redis_password"
    key = SearchSettings(admin_key_file=secrets / "admin_key").door_key
    assert first[secrets / "admin_header"] == f"Authorization: Bearer {key}\n"
    secret_files.main()
    assert {file: file.read_text() for file in first} == first


def test_a_folder_that_cannot_be_written_is_said_where_something_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["secret_files", str(tmp_path / "nowhere"), str(tmp_path)])
    with pytest.raises(SystemExit, match=r"nowhere lacks postgres_password, redis_password, admin_key"):
        secret_files.main()


def test_sandbox_profile_allows_no_network_and_no_kernel_interfaces() -> None:
    profile = json.loads((ROOT / "services/sandbox/seccomp-container.json").read_text())
    assert profile["defaultAction"] == "SCMP_ACT_ERRNO"
    plain = {name for rule in profile["syscalls"] if "args" not in rule for name in rule["names"]}
    forbidden = {
        "bpf",
        "ptrace",
        "perf_event_open",
        "keyctl",
        "add_key",
        "io_uring_setup",
        "init_module",
        "kexec_load",
    }
    assert not plain & (
        forbidden | {"socket", "userfaultfd", "process_vm_readv", "open_by_handle_at", "reboot"}
    )
    unix, netlink, route = 1, 16, 0
    allowed = [
        [(each["index"], each["op"], each["value"]) for each in rule["args"]]
        for rule in profile["syscalls"]
        if rule["names"] == ["socket"]
    ]
    # Family and protocol: netlink also reaches the firewall, audit and IPsec, which have had holes.
    equal = "SCMP_CMP_EQ"
    assert allowed == [[(0, equal, unix)], [(0, equal, netlink), (2, equal, route)]]

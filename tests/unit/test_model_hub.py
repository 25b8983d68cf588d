"""Models of the hub: the real library against a stand-in that speaks as much of the hub's protocol as a download needs."""

import contextlib
import hashlib
import http.server
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ratchet.models.sources import resolve
from tests.models import make_checkpoint

NOWHERE = "http://127.0.0.1:9"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny")


@pytest.fixture
def folder(checkpoint: Path, tmp_path: Path) -> Path:
    """A copy that the test may add to."""
    return Path(shutil.copytree(checkpoint, tmp_path / "copy"))


@contextlib.contextmanager
def hub_of(folder: Path, hub_id: str, *, breaks_off: bool = False) -> Iterator[str]:
    """As much of the hub's HTTP protocol as a download needs. A stand-in: tests have no hub."""
    commit = "a" * 40
    files = {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}

    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
            self.send_response(status)
            for key, value in (headers | {"Content-Length": str(len(body)), "X-Repo-Commit": commit}).items():
                self.send_header(key.replace("_", "-"), value)
            self.end_headers()
            if self.command != "HEAD":
                weights = self.path.split("?")[0].endswith(".safetensors")
                self.wfile.write(body[: len(body) // 2] if breaks_off and weights else body)

        def do_GET(self) -> None:
            path = self.path.split("?")[0]
            if path.startswith(f"/api/models/{hub_id}"):
                siblings = [{"rfilename": name, "size": len(data)} for name, data in files.items()]
                info = {"id": hub_id, "sha": commit, "siblings": siblings, "private": False, "tags": []}
                if "/tree/" in path:
                    tree = [
                        {"type": "file", "path": name, "size": len(d), "oid": "b" * 40}
                        for name, d in files.items()
                    ]
                    self.answer(200, json.dumps(tree).encode(), Content_Type="application/json")
                else:
                    self.answer(200, json.dumps(info).encode(), Content_Type="application/json")
            elif path.startswith(f"/{hub_id}/resolve/") and (name := path.rpartition("/")[2]) in files:
                self.answer(200, files[name], ETag=f'"{hashlib.sha1(files[name]).hexdigest()}"')
            else:
                self.answer(404, b"{}", X_Error_Code="RepoNotFound")

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *arguments: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


HUB_PROGRAM = """
import sys, time
from pathlib import Path
from ratchet.models.checkpoint import ModelSourceError
from ratchet.models.mirror import Mirror
from ratchet.models.sources import resolve
cache, hub, *words = sys.argv[1:]
time.sleep = lambda seconds: None  # the hub's library waits before it tries a download again
mirrors = {"named": Mirror("org/tiny", ("no-such-part==1",), 1, "0", "-", 1)}
for word in words:
    try:
        found = resolve(word, Path(cache), mirrors=mirrors, hub=hub)
        print(found.version, found.source)
    except ModelSourceError as error:
        print("refused:", " ".join(str(error).splitlines()))
"""


def resolve_elsewhere(tmp_path: Path, hub: str, *words: str) -> list[str]:
    """In a process of their own, one after the other: the hub's library reads where its cache is once."""
    environment = {
        "HF_HOME": str(tmp_path / "hf"),
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "PATH": "/usr/bin:/bin",
    }
    command = [sys.executable, "-c", HUB_PROGRAM, str(tmp_path / "cache"), hub, *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_hub_id_is_downloaded_and_then_found_without_the_hub(
    folder: Path, checkpoint: Path, tmp_path: Path
) -> None:
    (folder / "pytorch_model.bin").write_bytes(b"must not be downloaded")
    version = resolve(str(checkpoint), tmp_path / "cache").version
    with hub_of(folder, "org/tiny") as hub:
        found, other = resolve_elsewhere(tmp_path, hub, "org/tiny", "org/other")
    assert found == f"{version} hub"
    assert "no model org/other" in other
    assert not list((tmp_path / "hf").rglob("*.bin"))
    again, named, third = resolve_elsewhere(tmp_path, NOWHERE, "org/tiny", "named", "org/third")
    assert again == found
    # A name is taken from the hub as well where it can be had, so its mirror is not touched.
    assert named == f"{version.replace('tiny@', 'named@')} hub"
    assert "cannot be reached" in third


def test_a_download_that_breaks_off_is_told_and_goes_on_the_next_time(
    folder: Path, checkpoint: Path, tmp_path: Path
) -> None:
    with hub_of(folder, "org/tiny", breaks_off=True) as hub:
        (said,) = resolve_elsewhere(tmp_path, hub, "org/tiny")
    assert "Downloading org/tiny from the hub failed" in said
    assert "Run it again: what is there already is kept." in said
    version = resolve(str(checkpoint), tmp_path / "cache").version
    with hub_of(folder, "org/tiny") as hub:
        assert resolve_elsewhere(tmp_path, hub, "org/tiny") == [f"{version} hub"]

"""A memory and process limit for one zygote and its child, or for one session, by cgroups (version 1 or 2).

The zygote joins after its imports, so that what the libraries take is not counted: the limit is the program's own.
Everything here is an extra layer: where cgroups cannot be written, address space limits alone bound memory.

Limits: on version 2 the parent group must delegate the controllers to us (a systemd unit with Delegate=yes, or root in
a container of its own).
"""

import contextlib
import os
from dataclasses import dataclass, field
from pathlib import Path

import psutil

PREFIX = "ratchet-sandbox-"
UNLIMITED = 2**62


@dataclass
class Cgroup:
    """One group, in one hierarchy (version 2) or in two (version 1)."""

    version: int
    memory: Path | None
    pids: Path | None
    _limit: int = field(default=UNLIMITED, init=False)

    @property
    def layers(self) -> list[str]:
        """Names for the health report."""
        named = {"memory": self.memory, "pids": self.pids}
        return [f"cgroup-v{self.version}-{name}" for name, folder in named.items() if folder is not None]

    def add(self, pid: int) -> None:
        """Move a process into the group. Raises OSError."""
        for folder in self._folders():
            (folder / "cgroup.procs").write_text(str(pid))

    def limit_memory(self, size: int) -> None:
        """Set the limit in bytes, swap included where the kernel counts it. Raises OSError."""
        if self.memory is None or size == self._limit:
            return
        if self.version == 2:
            (self.memory / "memory.max").write_text(str(size))
            with contextlib.suppress(OSError):
                (self.memory / "memory.swap.max").write_text("0")
        else:
            # memsw must never be below the plain limit: raise it first, lower it last.
            names = ["memory.memsw.limit_in_bytes", "memory.limit_in_bytes"]
            for name in names if size > self._limit else reversed(names):
                with contextlib.suppress(FileNotFoundError):
                    (self.memory / name).write_text(str(size))
        self._limit = size

    def memory_used(self) -> int:
        """Bytes in use by the group; 0 where that is not known."""
        if self.memory is None:
            return 0
        name = "memory.current" if self.version == 2 else "memory.usage_in_bytes"
        return int((self.memory / name).read_text())

    def oom_kills(self) -> int:
        """How often the kernel has killed a process of the group for its memory."""
        if self.memory is None:
            return 0
        name = "memory.events" if self.version == 2 else "memory.oom_control"
        with contextlib.suppress(OSError, ValueError):
            for line in (self.memory / name).read_text().splitlines():
                key, _, value = line.partition(" ")
                if key == "oom_kill":
                    return int(value)
        return 0

    def remove(self) -> None:
        """Remove the group once its processes are gone; a group that is still in use stays."""
        for folder in self._folders():
            with contextlib.suppress(OSError):
                folder.rmdir()

    @property
    def gone(self) -> bool:
        """Whether it has been removed."""
        return not any(folder.exists() for folder in self._folders())

    def _folders(self) -> list[Path]:
        return list(dict.fromkeys(folder for folder in (self.memory, self.pids) if folder is not None))


def make_cgroup(name: str, tasks: int | None) -> Cgroup | None:
    """A new group below this process's own, for at most `tasks` processes and threads (None: any); None where there is none."""
    mounts = _hierarchies()
    for place in mounts.values():
        for stale in place.glob(f"{PREFIX}*"):
            _remove_stale(stale)
    if "memory" in mounts or "pids" in mounts:
        memory, pids = (_make(mounts, controller, name) for controller in ("memory", "pids"))
        if memory is None and pids is None:
            return None
        if pids is not None:
            (pids / "pids.max").write_text("max" if tasks is None else str(tasks))
        return Cgroup(1, memory, pids)
    if "v2" not in mounts:
        return None
    return _make_v2(mounts["v2"], name, tasks)


def _make_v2(parent: Path, name: str, tasks: int | None) -> Cgroup | None:
    with contextlib.suppress(OSError):
        (parent / "cgroup.subtree_control").write_text("+memory +pids")
    folder = parent / f"{PREFIX}{os.getpid()}-{name}"
    try:
        folder.mkdir(exist_ok=True)
    except OSError:
        return None
    has_memory, has_pids = (folder / "memory.max").exists(), (folder / "pids.max").exists()
    if not has_memory and not has_pids:
        with contextlib.suppress(OSError):
            folder.rmdir()
        return None
    if has_pids:
        (folder / "pids.max").write_text("max" if tasks is None else str(tasks))
    return Cgroup(2, folder if has_memory else None, folder if has_pids else None)


def _make(mounts: dict[str, Path], controller: str, name: str) -> Path | None:
    if controller not in mounts:
        return None
    folder = mounts[controller] / f"{PREFIX}{os.getpid()}-{name}"
    try:
        folder.mkdir(exist_ok=True)
    except OSError:
        return None
    return folder


def _remove_stale(folder: Path) -> None:
    """Groups of a supervisor that was killed: only an empty group can be removed."""
    pid = folder.name.removeprefix(PREFIX).partition("-")[0]
    if pid.isdigit() and not Path(f"/proc/{pid}").exists():
        with contextlib.suppress(OSError):
            folder.rmdir()


def memory_left() -> float:
    """Share of the memory that is still to be had: of the machine's, or of this container's limit where that is less."""
    machine = psutil.virtual_memory()
    shares = [machine.available / machine.total]
    mounts = _hierarchies()
    folder = mounts.get("memory") or mounts.get("v2")
    if folder is not None:
        version_1 = "memory" in mounts
        limit_name, used_name = (
            ("memory.limit_in_bytes", "memory.usage_in_bytes")
            if version_1
            else ("memory.max", "memory.current")
        )
        with contextlib.suppress(OSError, ValueError):
            # "max" is no number, and version 1 says an absurdly large one, where there is no limit.
            limit = int((folder / limit_name).read_text())
            cached = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            used = int((folder / used_name).read_text()) - int(
                cached.get("total_inactive_file", cached["inactive_file"])
            )
            if limit <= machine.total:
                shares.append(1 - used / limit)
    return min(shares)


def _hierarchies() -> dict[str, Path]:
    """This process's own folder in each hierarchy that matters: `memory`, `pids` (version 1), `v2`."""
    try:
        groups = Path("/proc/self/cgroup").read_text().splitlines()
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return {}
    own: dict[str, str] = {}
    for line in groups:
        number, controllers, path = line.split(":", 2)
        own |= {"v2": path} if number == "0" else dict.fromkeys(controllers.split(","), path)
    found: dict[str, Path] = {}
    for line in mounts:
        before, _, after = line.partition(" - ")
        root, point = before.split()[3:5]
        kind, _, options = after.split(" ", 2)
        names = {"cgroup": {"memory", "pids"} & set(options.split(",")), "cgroup2": {"v2"}}.get(kind, set())
        for name in names & own.keys():
            # In a container the mount's root is the group's own path.
            below = os.path.relpath(own[name], root) if own[name].startswith(root) else "."
            folder = Path(point) / below
            if folder.is_dir():
                found[name] = folder
    return found

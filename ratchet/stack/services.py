"""How a service is started: `python -m services.NAME`, with the folder that holds the package `services` on PYTHONPATH.

In a checkout that folder is the root. A wheel carries it inside the package `ratchet`, as a top-level package of the name
`services` could be anybody's: only processes that are started here find it under that name.
"""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import ratchet

_PACKAGE = Path(ratchet.__file__).parent
# The wheel's folder first: beside an installed `ratchet` there may be a stranger's `services`.
_FOLDERS = (_PACKAGE / "bundled", _PACKAGE.parent)


def services_folder() -> Path:
    """The folder to put on PYTHONPATH. Raises FileNotFoundError in an installation without the services."""
    for folder in _FOLDERS:
        if (folder / "services").is_dir():
            return folder
    raise FileNotFoundError(f"the services are missing: neither of {_FOLDERS} holds them")


def service_command(name: str) -> list[str]:
    """The argv of `python -m services.NAME`."""
    return [sys.executable, "-m", f"services.{name}"]


def service_environment(inherited: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What the process and its own children need in their environment to find the package `services`, and no other."""
    path = [str(services_folder()), *filter(None, [inherited.get("PYTHONPATH")])]
    # Without the second one `-m` looks into the current folder first.
    return {"PYTHONPATH": os.pathsep.join(path), "PYTHONSAFEPATH": "1"}

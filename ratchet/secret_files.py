"""`python -m ratchet.secret_files SECRETS TOKENS`: make the secrets of a deployment that has none yet.

Files that are there stay. Two folders, so that policy and PRM, which get the token alone, see nothing else. Beside the
operator's key lies the HTTP header that sends it, for `curl -H @FILE`: what is on a command line everybody on the machine sees.
"""

import os
import secrets
import sys
from collections.abc import Iterable
from pathlib import Path

PASSWORDS = ("postgres_password", "redis_password")
ADMIN_KEY = "admin_key"
ADMIN_HEADER = "admin_header"
SERVICE_TOKEN = "service_token"  # noqa: S105 - a file's name

OF_EVERYBODY = 0o444
"""Whoever is shown the folder may read it: in containers the databases run as other users than the services."""
OF_OWNER = 0o600


def make(folder: Path, names: Iterable[str], mode: int) -> None:
    """Write a random secret for each name without a file, and the header of an operator's key. Raises OSError."""
    for name in names:
        _write(folder / name, secrets.token_urlsafe(32), mode)
        if name == ADMIN_KEY:
            key = (folder / ADMIN_KEY).read_text().strip()
            _write(folder / ADMIN_HEADER, f"Authorization: Bearer {key}", mode)


def _write(path: Path, text: str, mode: int) -> None:
    """Make the file with the line, unless there is one."""
    if path.is_file():
        return
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        os.fchmod(file.fileno(), mode)
        file.write(text + "\n")
    try:
        # A link fails where the name exists: two of us at once agree on one secret.
        path.hardlink_to(fresh)
    except FileExistsError:
        pass
    finally:
        fresh.unlink()


def main() -> None:
    """Exit with a message where a folder cannot be written and something is missing."""
    if len(sys.argv) != 3:
        sys.exit("usage: python -m ratchet.secret_files SECRETS TOKENS")
    wanted = {
        Path(sys.argv[1]): (*PASSWORDS, ADMIN_KEY),
        Path(sys.argv[2]): (SERVICE_TOKEN,),
    }
    for folder, names in wanted.items():
        missing = [name for name in names if not (folder / name).is_file()]
        try:
            make(folder, names if missing else (), OF_EVERYBODY)
        except OSError as error:
            sys.exit(f"ratchet: {folder} lacks {', '.join(missing)}, and cannot be written: {error}")


if __name__ == "__main__":
    main()

"""`python -m ratchet.secret_files FOLDER`: make the passwords of a deployment that has none yet. Files that are there stay."""

import os
import secrets
import sys
from pathlib import Path

NAMES = ("postgres_password", "redis_password")


def make(folder: Path) -> list[str]:
    """Write a random password for each name without a file; returns the names of those that were made. Raises OSError."""
    made = []
    for name in NAMES:
        # Whoever is shown the folder may read it: the databases run as other users than the services.
        fresh = folder / f".{name}.{os.getpid()}"
        fresh.write_text(secrets.token_urlsafe(32) + "\n")
        fresh.chmod(0o444)
        try:
            # A link fails where the name exists: two of us at once agree on one password.
            (folder / name).hardlink_to(fresh)
            made.append(name)
        except FileExistsError:
            pass
        finally:
            fresh.unlink()
    return made


def main() -> None:
    """Exit with a message where the folder cannot be written and something is missing."""
    if len(sys.argv) != 2:
        sys.exit("usage: python -m ratchet.secret_files FOLDER")
    folder = Path(sys.argv[1])
    missing = [name for name in NAMES if not (folder / name).is_file()]
    try:
        if missing:
            make(folder)
    except OSError as error:
        sys.exit(f"ratchet: {folder} lacks {', '.join(missing)}, and cannot be written: {error}")


if __name__ == "__main__":
    main()

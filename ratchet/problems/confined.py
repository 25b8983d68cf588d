"""Which files a problem spec may name that came over HTTP: regular ones below one folder.

Whoever may begin a round can have the trainer read what its spec names, so that must not be any file of the machine. A refusal
says the same of a file that is elsewhere as of one that is nowhere.

Limits: symbolic links are followed when the spec is looked at. Who can write below the folder can change them afterwards.
"""

from pathlib import Path

from ratchet.problems.files import is_problem_file, opened, split_options
from ratchet.problems.problem import ProblemFileError
from ratchet.problems.sets import names_file


def confined(spec: str, folder: Path | None) -> str:
    """The spec, with the whole path where it names a file (its own path counts from `folder`).

    Raises ProblemFileError unless that is a problem file below `folder`; with None no file is.
    """
    if not names_file(spec):
        return spec
    if folder is None:
        raise ProblemFileError(
            f"{spec}: this trainer reads no problem files. Set RATCHET_PROBLEMS_DIR to the folder that has them, or name "
            "nano:train, hub:org/name or reasoning-gym:task."
        )
    path, options = split_options(spec)
    refusal = ProblemFileError(
        f"{spec}: there is no such file (*.jsonl, *.json, *.csv, *.parquet) in the trainer's folder of problem files. Put it "
        "there (RATCHET_PROBLEMS_DIR says where that is), and name it by its path in that folder."
    )
    try:
        below = folder.expanduser().resolve(strict=True)
        file = (below / path).resolve(strict=True)
    except (OSError, RuntimeError, ValueError):
        raise refusal from None
    if not file.is_relative_to(below) or not is_problem_file(file.name):
        raise refusal
    # What is no regular file, or too large, is refused now and not in the middle of a round.
    with opened(file):
        return f"{file}?{options}" if options else str(file)

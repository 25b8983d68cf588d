"""Our jail as a sandbox of Inspect AI: Python programs run in it, each from nothing.

Inspect asks for commands. `python`, `python3` with `-c CODE`, a script or standard input run as programs in the sandbox
service; any other command is refused as a shell refuses what it does not find. Files of a sample are kept here, and laid into
the working folder of each program.

Limits: what a program writes goes with its jail. Programs, files and input together are at most 100,000 characters. There is
no shell, no network, no other user, and no environment variable.
"""

import base64
import posixpath
from pathlib import PurePosixPath
from typing import Literal, Union, overload

from inspect_ai.util import (
    ExecResult,
    SandboxEnvironment,
    SandboxEnvironmentConfigType,
    SandboxUserUnsupportedError,
    sandboxenv,
)

from ratchet.clients import SandboxClient
from ratchet.contracts.base import MAX_CODE_CHARS
from ratchet.contracts.sandbox import CommandStatus, RunCodeRequest, RunStatus
from ratchet.evaluators.solving import EvaluatorError, local_stack

FOLDER = "/work"
"""The sample's working folder, as Inspect sees it."""
NOT_FOUND = 127
LONGEST_SECONDS = 120
_PYTHON = ("python", "python3")
_LAID_OUT = """\
import base64 as _b, os as _o, sys as _s, tempfile as _t
_o.chdir(_t.mkdtemp())
for _name, _held in {files!r}.items():
    _o.makedirs(_o.path.dirname(_name) or ".", exist_ok=True)
    with open(_name, "wb") as _file:
        _file.write(_b.b64decode(_held))
_s.argv = {argv!r}
exec(compile({code!r}, {name!r}, "exec"), {{"__name__": "__main__"}})
"""


@sandboxenv(name="ratchet")
class Jail(SandboxEnvironment):
    """One sample's files, and the way to the sandbox of the local stack."""

    def __init__(self, url: str, token: str | None) -> None:
        super().__init__()
        self._url = url
        self._token = token
        self._files: dict[str, bytes] = {}

    @classmethod
    async def sample_init(
        cls, task_name: str, config: SandboxEnvironmentConfigType | None, metadata: dict[str, str]
    ) -> dict[str, SandboxEnvironment]:
        """A sandbox for a sample. Raises EvaluatorError where no stack is up."""
        stack = local_stack()
        if stack is None:
            raise EvaluatorError(
                "No sandbox: start a stack with `ratchet up` (RATCHET_DATA names its data folder)."
            )
        return {"default": cls(stack.sandbox, stack.token)}

    @classmethod
    async def sample_cleanup(
        cls,
        task_name: str,
        config: SandboxEnvironmentConfigType | None,
        environments: dict[str, SandboxEnvironment],
        interrupted: bool,
    ) -> None:
        """Nothing outlives a program."""

    async def exec(
        self,
        cmd: list[str],
        input: str | bytes | None = None,  # noqa: A002 - Inspect's name
        cwd: str | None = None,
        env: dict[str, str] | None = None,
        user: str | None = None,
        timeout: int | None = None,  # noqa: ASYNC109 - Inspect's name
        timeout_retry: bool = True,
        concurrency: bool = True,
    ) -> ExecResult[str]:
        """Run a Python program. Raises TimeoutError, ServiceError, SandboxUserUnsupportedError."""
        if user is not None:
            raise SandboxUserUnsupportedError("programs in the jail have one user, without privileges")
        stdin = input.decode() if isinstance(input, bytes) else input
        found = self._program(cmd, stdin)
        if found is None:
            said = "not found; the jail runs python and python3 with -c CODE, a script or standard input"
            return ExecResult(False, NOT_FOUND, "", f"{cmd[0] if cmd else ''}: {said}")
        name, code, argv, stdin = found
        files = {path: base64.b64encode(held).decode() for path, held in self._files.items()}
        program = _LAID_OUT.format(files=files, argv=argv, code=code, name=name)
        if len(program) > MAX_CODE_CHARS:
            return ExecResult(
                False,
                1,
                "",
                f"the program and its files have {len(program)} characters, more than {MAX_CODE_CHARS}",
            )
        seconds = min(timeout or LONGEST_SECONDS, LONGEST_SECONDS)
        async with SandboxClient(self._url, key=self._token) as sandbox:
            ran = await sandbox.run_code(RunCodeRequest(code=program, stdin=stdin, run_timeout=seconds))
        if ran.status is RunStatus.SANDBOX_ERROR:
            raise RuntimeError(f"the sandbox could not run the program: {ran.message}")
        result = ran.run_result
        if result.status is CommandStatus.TIME_LIMIT_EXCEEDED:
            raise TimeoutError(f"the program ran for more than {seconds} s")
        code_ = 128 + (result.measured.signal or 0) if result.return_code is None else result.return_code
        return ExecResult(code_ == 0, code_, result.stdout, result.stderr)

    def _program(self, cmd: list[str], stdin: str | None) -> tuple[str, str, list[str], str | None] | None:
        """Name, code, arguments and standard input of what the command runs; None: it is no Python program that is here."""
        if not cmd or posixpath.basename(cmd[0]) not in _PYTHON:
            return None
        match cmd[1:]:
            case ["-c", code, *rest]:
                return "<string>", code, ["-c", *rest], stdin
            case [] | ["-"]:
                return "<stdin>", stdin or "", ["-"], None
            case [script, *rest] if not script.startswith("-"):
                held = self._files.get(_inside(script))
                return None if held is None else (script, held.decode(), [script, *rest], stdin)
        return None

    async def write_file(self, file: str, contents: str | bytes) -> None:
        """Keep a file of the sample. Raises PermissionError outside the working folder."""
        name = _inside(file)
        if any(PurePosixPath(other).is_relative_to(name) and other != name for other in self._files):
            raise IsADirectoryError(file)
        self._files[name] = contents.encode() if isinstance(contents, str) else contents

    @overload
    async def read_file(self, file: str, text: Literal[True] = True) -> str: ...

    @overload
    async def read_file(self, file: str, text: Literal[False]) -> bytes: ...

    async def read_file(self, file: str, text: bool = True) -> Union[str, bytes]:  # noqa: UP007
        """A file that was written by `write_file`. Raises FileNotFoundError."""
        held = self._files.get(_inside(file))
        if held is None:
            raise FileNotFoundError(file)
        return held.decode() if text else held


def _inside(file: str) -> str:
    """The path in the working folder. Raises PermissionError for one outside of it."""
    whole = posixpath.normpath(posixpath.join(FOLDER, file))
    if not whole.startswith(f"{FOLDER}/"):
        raise PermissionError(f"{file} is outside of the sample's folder {FOLDER}")
    return whole.removeprefix(f"{FOLDER}/")

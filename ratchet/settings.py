"""Configuration: one typed class per role, read from `RATCHET_*` environment variables.

Only what differs between deployments is a setting. What belongs to a request (budget, strategy) is in the request.
"""

import sys
from pathlib import Path
from typing import Annotated, Literal, TypeVar
from urllib.parse import quote, urlsplit

from pydantic import Field, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

_S = TypeVar("_S", bound="Settings")

SHORTEST_SECRET = 16
"""Characters. Those that we make have 43 and more; an empty file is a mistake, not a secret that anybody guesses."""


def read_secret(file: Path) -> str:
    """What a file with a secret holds. Raises ValueError where it cannot be read."""
    try:
        return file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} cannot be read: {error}") from error


class Settings(BaseSettings):
    """What every process needs."""

    model_config = SettingsConfigDict(
        env_prefix="RATCHET_", env_ignore_empty=True, extra="ignore", frozen=True
    )

    host: str = Field(default="127.0.0.1", description="Address that the service binds.")
    port: int = Field(
        default=0, ge=0, le=65535, description="Port that the service binds; 0 takes a free one."
    )
    socket: Path | None = Field(
        default=None,
        description="Unix socket that the service binds instead of host and port; callers name it unix:///path.",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="Less urgent lines are left out of the log."
    )
    log_json: bool = Field(default=True, description="One JSON object a line; off: lines for people.")
    max_body_bytes: int = Field(default=4 * 2**20, ge=1024, description="Larger request bodies get 413.")
    max_connections: int = Field(
        default=4096, ge=16, description="Connections at once; requests on more get 503."
    )
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Names, besides loopback's, the bound address and the services' own, by which a Host header may "
        "call the service; commas between them.",
    )
    service_token_file: Path | None = Field(
        default=None,
        description="File with the token that policy, PRM and sandbox ask for, and that their callers send. Without it "
        "they ask for none, and bind loopback or a Unix socket only.",
    )

    @field_validator("allowed_hosts", mode="before")
    @classmethod
    def _by_commas(cls, value: object) -> object:
        return (
            [name.strip() for name in value.split(",") if name.strip()] if isinstance(value, str) else value
        )

    @field_validator("service_token_file", "admin_key_file", check_fields=False)
    @classmethod
    def _holding_a_secret(cls, file: Path | None) -> Path | None:
        if file is not None and len(read_secret(file)) < SHORTEST_SECRET:
            raise ValueError(f"{file} holds fewer than {SHORTEST_SECRET} characters: no secret")
        return file

    @property
    def service_token(self) -> str | None:
        """The token that the services share; None: they ask for none."""
        return None if self.service_token_file is None else read_secret(self.service_token_file)

    @property
    def door_key(self) -> str | None:
        """The secret that this service asks its callers for; None: it asks for none."""
        return self.service_token


class StoreSettings(Settings):
    """A process that talks to Postgres and Redis."""

    # Before the URLs, whose validator reads them.
    database_password_file: Path | None = Field(
        default=None, description="File with the password that the database URL leaves out."
    )
    redis_password_file: Path | None = Field(
        default=None, description="File with the password that the Redis URL leaves out."
    )
    database_url: str = Field(
        default="postgresql+asyncpg://ratchet@127.0.0.1:5432/ratchet", description="SQLAlchemy URL (asyncpg)."
    )
    redis_url: str = Field(default="redis://127.0.0.1:6379/0", description="Redis or Valkey.")
    admin_key_file: Path | None = Field(
        default=None,
        description="File with the operator's key, which search and trainer take besides those of `ratchet keys create`. "
        "Without it they ask for none, and bind loopback or a Unix socket only.",
    )

    @property
    def door_key(self) -> str | None:
        """The operator's key."""
        return None if self.admin_key_file is None else read_secret(self.admin_key_file)

    @field_validator("database_url", "redis_url")
    @classmethod
    def _with_password(cls, url: str, info: ValidationInfo) -> str:
        file: Path | None = info.data.get(f"{str(info.field_name).removesuffix('_url')}_password_file")
        if file is None:
            return url
        password = read_secret(file)
        parts = urlsplit(url)
        user, _, host = parts.netloc.rpartition("@")
        return parts._replace(netloc=f"{user.partition(':')[0]}:{quote(password, safe='')}@{host}").geturl()


BEST_HERE = "auto"
"""The name of the model that this machine serves well (`ratchet.models.sources`)."""


class PolicySettings(Settings):
    """The policy service."""

    model: str = Field(
        default=BEST_HERE,
        description="Local folder, hub id, or a name: nano, small, medium. auto: medium, or small where memory is short or the "
        "processor does not multiply bf16.",
    )
    engine: Literal["auto", "vllm", "transformers"] = Field(
        default="auto",
        description="auto: vLLM where it is installed, otherwise transformers, as for very small models.",
    )
    cache_dir: Path = Field(
        default=Path("~/.cache/ratchet").expanduser(), description="Where converted checkpoints are kept."
    )
    max_model_len: int = Field(default=4096, ge=128, description="Longest prompt plus completion, tokens.")
    max_num_seqs: int = Field(
        default=64,
        ge=1,
        description="Most sequences in one batch; very small models take four times as many.",
    )
    max_models: int = Field(default=3, ge=1, description="Most versions of the model held at once.")
    kv_cache_gb: float = Field(default=2.0, gt=0, description="KV cache on CPU, GiB.")
    int8: bool = Field(
        default=False, description="vLLM on a CPU that multiplies bytes serves weights as 8-bit numbers."
    )
    step_format: Literal["auto", "markers", "few_shot", "chat"] = Field(
        default="auto",
        description="How the model is asked for steps. auto: what the checkpoint's config says, otherwise what measured "
        "best for this model, otherwise few_shot.",
    )


class PrmSettings(Settings):
    """The PRM service."""

    policy_url: str = Field(
        default="http://127.0.0.1:8001", description="The policy whose likelihoods PRM1 reads."
    )
    # Not `model`: RATCHET_MODEL is the policy's, and a stack gives its whole environment to every service.
    prm_model: str = Field(
        default="prm1-likelihood",
        description="What serves at first: prm1-likelihood, or a trained PRM's local folder or hub id.",
    )
    cache_dir: Path = Field(
        default=Path("~/.cache/ratchet").expanduser(), description="Where digests of checkpoints are kept."
    )
    cache_entries: int = Field(default=100_000, ge=0, description="Scores kept in memory.")


class SandboxSettings(Settings):
    """The sandbox service."""

    min_isolation: Literal["namespaces", "rlimits"] = Field(
        default="namespaces", description="The service refuses to start below this level."
    )
    workers: int = Field(default=2, ge=1, le=64, description="Programs and steps that run at once.")
    queue_size: int = Field(
        default=1024,
        ge=1,
        description="Requests that may wait; more get 503, and one caller's beyond half of them 429, with Retry-After.",
    )
    queue_timeout: float = Field(default=60.0, gt=0, description="Longest wait in the queue, seconds.")
    max_output_bytes: int = Field(
        default=64 * 1024, ge=1024, description="Of stdout and of stderr; the rest is cut."
    )
    max_sessions: int = Field(
        default=256, ge=1, description="Sessions at once; more get 503 with Retry-After."
    )
    max_snapshots: int = Field(
        default=1024, ge=1, description="Interpreter states kept, 1 to 8 MB each, in all sessions together."
    )
    session_memory_mb: int = Field(
        default=2048,
        ge=256,
        description="Memory of one session with all its snapshots, where cgroups can be had, MiB.",
    )
    session_idle_seconds: float = Field(
        default=600.0, gt=0, description="A session unused for so long is ended."
    )


class SearchSettings(StoreSettings):
    """The search API and its worker."""

    policy_url: str = Field(default="http://127.0.0.1:8001", description="The policy service.")
    prm_url: str = Field(default="http://127.0.0.1:8002", description="The PRM service.")
    sandbox_url: str = Field(
        default="http://127.0.0.1:8003",
        description="The sandbox service; `unix:///path` where it listens on a socket.",
    )
    trainer_url: str = Field(
        default="http://127.0.0.1:8004",
        description="The trainer service: rounds and models are shown and steered through the search API, too.",
    )
    concurrency: int = Field(default=32, ge=1, description="Searches that one worker runs at once.")
    lease_seconds: float = Field(
        default=15.0, ge=1.0, description="A worker that is silent for this long has lost its searches."
    )
    queue_name: str = Field(default="search", description="Queue of the searches.")
    max_queued: int = Field(
        default=10_000,
        ge=1,
        description="Searches of callers that may wait in one priority; more get 503 with Retry-After.",
    )
    max_followers: int = Field(
        default=4096,
        ge=1,
        description="Callers of one search API that may follow or wait for searches; more get 503 with Retry-After.",
    )
    keep_searches_days: float | None = Field(
        default=None,
        ge=0,
        description="Searches that ended longer ago are deleted, unless a round needs them; none: no search is.",
    )
    keep_trees_days: float | None = Field(
        default=None,
        ge=0,
        description="The same, of their trees alone; answers and proofs stay.",
    )
    max_attempts: int = Field(
        default=5,
        ge=1,
        description="Workers that may be lost with one search, while its journal does not grow, before it fails.",
    )
    outage_seconds: float = Field(
        default=30.0,
        gt=0,
        description="A worker whose policy, PRM or sandbox is away for this long gives its searches back.",
    )


class TrainerSettings(StoreSettings):
    """The trainer service."""

    policy_url: str = Field(default="http://127.0.0.1:8001", description="The policy service.")
    prm_url: str = Field(default="http://127.0.0.1:8002", description="The PRM service.")
    sandbox_url: str = Field(
        default="http://127.0.0.1:8003",
        description="The sandbox service; `unix:///path` where it listens on a socket.",
    )
    queue_name: str = Field(default="search", description="Queue of the searches.")
    rounds_dir: Path = Field(
        default=Path(".ratchet/rounds"),
        description="Data sets, checkpoints and reports of rounds; policy and PRM read checkpoints from here.",
    )
    cache_dir: Path = Field(
        default=Path("~/.cache/ratchet").expanduser(), description="Where converted checkpoints are kept."
    )
    lease_seconds: float = Field(
        default=15.0, ge=1.0, description="A trainer that is silent for this long has lost its round."
    )
    poll_seconds: float = Field(default=1.0, gt=0, description="How often to look for a round to work on.")
    round_attempts: int = Field(
        default=5,
        ge=1,
        description="Times that a round may be taken up without getting further before it fails.",
    )
    problems_dir: Path | None = Field(
        default=None,
        description="Folder of the problem files that a round may name; none: it may name no file.",
    )
    work_on_rounds: bool = Field(
        default=True, description="Whether rounds are worked on, or only kept, shown and asked for."
    )


def load(kind: type[_S]) -> _S:
    """The settings from the environment. Exits with a message that names the variable where one is wrong."""
    try:
        return kind()
    except ValidationError as error:
        first = error.errors()[0]
        sys.exit(f"ratchet: RATCHET_{str(first['loc'][0]).upper()}: {first['msg']}")

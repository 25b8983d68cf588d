"""The tables, as SQLAlchemy Core metadata. Enum columns are text with a CHECK made from the enum.

The migrations make a database, not this file; a test holds that both agree. Limit: SQL stays within Postgres 15.
"""

from enum import StrEnum

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Double,
    Enum,
    ForeignKey,
    Identity,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from ratchet.contracts.keys import KeyScope
from ratchet.contracts.sandbox import StepStatus
from ratchet.contracts.search import Priority, StrategyName, VerificationLevel
from ratchet.contracts.trainer import ModelKind, ServedBy
from ratchet.states import ModelState, NodeState, RoundState, SearchState

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _one_of(enum: type[StrEnum], name: str) -> Enum:
    # 64 leaves room for new members without a change of type.
    return Enum(
        enum,
        name=name,
        native_enum=False,
        create_constraint=True,
        length=64,
        values_callable=lambda members: [member.value for member in members],
    )


def _created_at() -> Column[object]:
    return Column(
        "created_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()
    )


def _json(name: str) -> Column[object]:
    return Column(name, JSONB, nullable=False, server_default=text("'{}'::jsonb"))


problems = Table(
    "problems",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("sha256", Text, nullable=False, unique=True, comment="Of the text, UTF-8."),
    Column("text", Text, nullable=False),
    _created_at(),
)

rounds = Table(
    "rounds",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("number", Integer, nullable=False),
    Column("state", _one_of(RoundState, "state"), nullable=False),
    _json("config"),
    _json("metrics"),
    Column("reason", Text),
    _created_at(),
    Column("ended_at", DateTime(timezone=True)),
    Column("failed_in", _one_of(RoundState, "failed_in")),
    Column("run", Text, nullable=False, server_default="default"),
    Column("paused", Boolean, nullable=False, server_default=text("false")),
    Column("cancel_requested", Boolean, nullable=False, server_default=text("false")),
    Column("owner", Text, comment="The trainer that holds the lease."),
    Column("lease_until", DateTime(timezone=True)),
    Column("fence", BigInteger, nullable=False, server_default=text("0"), comment="Grows with each claim."),
    _json("progress"),
    Column(
        "attempts",
        Integer,
        nullable=False,
        server_default=text("0"),
        comment="Trainers that took it up since it last got further.",
    ),
    Column(
        "furthest",
        Integer,
        nullable=False,
        server_default=text("0"),
        comment="Most that an attempt at this stage has done.",
    ),
    UniqueConstraint("run", "number"),
)

searches = Table(
    "searches",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("problem_id", ForeignKey("problems.id"), nullable=False, index=True),
    Column("round_id", ForeignKey("rounds.id"), index=True),
    Column("idempotency_key", Text, unique=True),
    Column(
        "request_sha256",
        Text,
        nullable=False,
        comment="Of the canonical request, to tell a retry from a reuse.",
    ),
    Column("strategy", _one_of(StrategyName, "strategy"), nullable=False),
    Column("parameters", JSONB, nullable=False),
    Column("budget", JSONB, nullable=False),
    Column("seed", BigInteger, nullable=False),
    Column("priority", _one_of(Priority, "priority"), nullable=False),
    Column("require", _one_of(VerificationLevel, "require"), nullable=False),
    Column("state", _one_of(SearchState, "state"), nullable=False),
    Column("reason", Text),
    _json("usage"),
    _json("models"),
    Column("cancel_requested", Boolean, nullable=False, server_default=text("false")),
    Column("owner", Text, comment="The worker that holds the lease."),
    Column("lease_until", DateTime(timezone=True)),
    Column("fence", BigInteger, nullable=False, server_default=text("0"), comment="Grows with each claim."),
    Column(
        "attempts",
        Integer,
        nullable=False,
        server_default=text("0"),
        comment="Workers that took it up since its journal last grew.",
    ),
    _created_at(),
    Column("started_at", DateTime(timezone=True)),
    Column("ended_at", DateTime(timezone=True)),
    _json("pinned"),
    Column("min_confidence", Double),
    Column("not_before", DateTime(timezone=True), comment="When one that was given back is due again."),
    Column(
        "given_back",
        Integer,
        nullable=False,
        server_default=text("0"),
        comment="How often in a row, for what was away.",
    ),
    Column("key_id", ForeignKey("api_keys.id"), comment="None: begun by the operator, or by a round."),
    Column(
        "beginning",
        JSONB(none_as_null=True),
        comment="Where it was branched from, and the steps that it was given.",
    ),
    Column(
        "queued_again_at", DateTime(timezone=True), comment="When a person last had it go on after its end."
    ),
    Column(
        "tokens_before",
        BigInteger,
        nullable=False,
        server_default=text("0"),
        comment="What it had generated before the day of that (UTC).",
    ),
    Index("ix_searches_state_id", "state", "id"),
    # What a key has used today. Most searches are a round's, and have none.
    Index(
        "ix_searches_key_id_created_at",
        "key_id",
        "created_at",
        postgresql_where=text("key_id IS NOT NULL"),
    ),
    Index(
        "ix_searches_key_id_queued_again_at",
        "key_id",
        "queued_again_at",
        postgresql_where=text("key_id IS NOT NULL AND queued_again_at IS NOT NULL"),
    ),
    # The sweeper looks only at searches that are not over: a few among very many.
    Index(
        "ix_searches_waiting",
        "created_at",
        postgresql_where=text("state IN ('queued', 'running')"),
    ),
)

round_problems = Table(
    "round_problems",
    metadata,
    Column("round_id", ForeignKey("rounds.id", ondelete="CASCADE"), primary_key=True),
    Column("split", Text, primary_key=True),
    Column("place", Integer, primary_key=True),
    Column("problem_id", ForeignKey("problems.id"), nullable=False, index=True),
    Column("answer", Text, nullable=False),
    Column("family", Text, nullable=False),
    Column("difficulty", Integer),
    Column("source", Text, nullable=False),
)

quarantine = Table(
    "quarantine",
    metadata,
    Column("run", Text, primary_key=True),
    Column("problem_id", ForeignKey("problems.id"), primary_key=True),
    Column("round_id", ForeignKey("rounds.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("reference", Text, nullable=False, comment="The answer that is not trusted."),
    Column("source", Text, nullable=False),
    Column("disagreement", JSONB, nullable=False),
    _created_at(),
    Column("overruled_at", DateTime(timezone=True)),
    Column("overruled_because", Text, comment="In the words of who overruled."),
)

round_searches = Table(
    "round_searches",
    metadata,
    Column("round_id", ForeignKey("rounds.id", ondelete="CASCADE"), primary_key=True),
    Column("purpose", Text, primary_key=True),
    Column("place", Integer, primary_key=True),
    Column("attempt", Integer, primary_key=True),
    Column("search_id", ForeignKey("searches.id", ondelete="CASCADE"), nullable=False, index=True),
)

reference_answers = Table(
    "reference_answers",
    metadata,
    # Apart from `searches`, so that no query for a search can carry the answer to policy, PRM, tree or events.
    Column("search_id", ForeignKey("searches.id", ondelete="CASCADE"), primary_key=True),
    Column("answer", Text, nullable=False),
)

nodes = Table(
    "nodes",
    metadata,
    Column("search_id", ForeignKey("searches.id", ondelete="CASCADE"), primary_key=True),
    Column("id", Text, primary_key=True),
    # No foreign key to itself: Postgres plans its check once a session, and a plan made on an empty table scans all rows
    # until the session ends. `write_nodes` checks that parents are there.
    Column("parent", Text),
    Column("ordinal", BigInteger, nullable=False),
    Column("depth", Integer, nullable=False),
    Column("state", _one_of(NodeState, "state"), nullable=False),
    Column("task", Text, nullable=False),
    Column("text", Text, nullable=False),
    Column("status", _one_of(StepStatus, "status")),
    Column("stdout", Text, nullable=False),
    Column("stderr", Text, nullable=False),
    Column("prm_score", Double),
    Column("prior", Double, nullable=False),
    Column("visits", Integer, nullable=False),
    Column("value_sum", Double, nullable=False),
    Column("tokens", Integer, nullable=False),
    Column("seconds", Double, nullable=False),
    Column("answer", Text),
    Column("expansions", Integer, nullable=False),
    _created_at(),
    Column("ended_by", Text),
    UniqueConstraint("search_id", "ordinal"),
)

search_tasks = Table(
    "search_tasks",
    metadata,
    Column("search_id", ForeignKey("searches.id", ondelete="CASCADE"), primary_key=True),
    Column("fence", BigInteger, primary_key=True, comment="Of the worker that did it."),
    Column("place", Integer, primary_key=True, comment="Counts what this worker told the strategy."),
    Column("first", Integer, nullable=False),
    Column("number", Integer, nullable=False),
    Column("asked", Integer, nullable=False),
    Column("node", Text, nullable=False),
    Column("draw", Text, nullable=False),
    Column("prm", Text),
    Column("ends", JSONB, nullable=False),
    Column("value", Double),
    Column("ended_by", Text),
    Column(
        "taken_over",
        JSONB(none_as_null=True),
        comment="Numbers of the tasks that this worker found under way.",
    ),
    Column(
        "why",
        JSONB(none_as_null=True),
        comment="The terms of the strategy's rule when it asked; none where nobody watched.",
    ),
)

search_progress = Table(
    "search_progress",
    metadata,
    Column("search_id", ForeignKey("searches.id", ondelete="CASCADE"), primary_key=True),
    Column("asked", Integer, nullable=False),
    Column("tasks", JSONB, nullable=False, comment="Asked for and not told yet."),
)

solutions = Table(
    "solutions",
    metadata,
    Column("search_id", ForeignKey("searches.id", ondelete="CASCADE"), primary_key=True),
    Column("answer", Text, nullable=False),
    Column("program", Text),
    Column("steps", JSONB, nullable=False),
    Column("proof", JSONB),
    _created_at(),
)

verifications = Table(
    "verifications",
    metadata,
    Column("search_id", ForeignKey("solutions.search_id", ondelete="CASCADE"), primary_key=True),
    Column("level", _one_of(VerificationLevel, "level"), nullable=False),
    Column("votes", Integer, nullable=False),
    Column("total_votes", Integer, nullable=False),
    Column("independent_programs", Integer, nullable=False),
    Column("forms", Integer, nullable=False),
    Column("grounded", Boolean),
    Column("prm_share", Double, nullable=False),
    Column("confidence", Double),
    _created_at(),
    Column("min_confidence", Double),
)

datasets = Table(
    "datasets",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("round_id", ForeignKey("rounds.id"), index=True),
    Column("name", Text, nullable=False),
    Column("uri", Text, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("rows", BigInteger, nullable=False),
    _created_at(),
)

models = Table(
    "models",
    metadata,
    Column("version", Text, primary_key=True),
    Column("kind", _one_of(ModelKind, "kind"), nullable=False),
    Column("state", _one_of(ModelState, "state"), nullable=False),
    Column("parent", ForeignKey("models.version"), index=True),
    Column("uri", Text, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("dataset", ForeignKey("datasets.id")),
    _json("metrics"),
    _created_at(),
    Index("ix_models_kind_created_at", "kind", "created_at"),
    # A service serves one version of its kind.
    Index("uq_models_serving", "kind", unique=True, postgresql_where=text("state = 'serving'")),
)

serving_pairs = Table(
    "serving_pairs",
    metadata,
    # Rows are added under a lock, so the highest id is what serves.
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("policy", ForeignKey("models.version"), nullable=False),
    # No foreign key: PRM1 is not registered.
    Column("prm", Text, nullable=False),
    Column("round_id", ForeignKey("rounds.id")),
    Column("why", _one_of(ServedBy, "why"), nullable=False),
    Column("before", ForeignKey("serving_pairs.id"), comment="What a rollback goes to."),
    _created_at(),
)

evaluations = Table(
    "evaluations",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("model", ForeignKey("models.version"), nullable=False, index=True),
    Column("round_id", ForeignKey("rounds.id"), index=True),
    Column("split", Text, nullable=False),
    _json("metrics"),
    _created_at(),
)

strategy_choices = Table(
    "strategy_choices",
    metadata,
    Column("policy", Text, primary_key=True),
    Column("prm", Text, primary_key=True),
    # No foreign keys, as of calibrations.
    Column("choice", JSONB, nullable=False),
    _created_at(),
)

calibrations = Table(
    "calibrations",
    metadata,
    Column("policy", Text, primary_key=True),
    Column("prm", Text, primary_key=True),
    # Versions are no foreign keys: PRM1, and a model that was never registered, are calibrated as well.
    Column("calibration", JSONB, nullable=False),
    _created_at(),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("name", Text, nullable=False),
    Column("scope", _one_of(KeyScope, "scope"), nullable=False),
    Column("limits", JSONB, nullable=False),
    Column("sha256", Text, nullable=False, comment="Of the key, which is kept nowhere."),
    _created_at(),
    Column("revoked_at", DateTime(timezone=True)),
    Index("uq_api_keys_name_in_force", "name", unique=True, postgresql_where=text("revoked_at IS NULL")),
)

audited_calls = Table(
    "audited_calls",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("at", DateTime(timezone=True), nullable=False),
    # A name and no foreign key: the operator's key is not stored.
    Column("key", Text, nullable=False),
    Column("key_id", Uuid),
    Column("service", Text, nullable=False),
    Column("method", Text, nullable=False),
    Column("route", Text, nullable=False),
    Column("target", Text, nullable=False),
    Column("status", Integer, nullable=False),
)

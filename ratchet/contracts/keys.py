"""API keys: what a caller may do with one, and the audit of what callers did."""

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from pydantic import Field

from ratchet.contracts.base import Contract
from ratchet.contracts.search import Priority

NAME_PATTERN = r"^[a-z0-9][a-z0-9._-]*$"
MAX_NAME_CHARS = 63


class KeyScope(StrEnum):
    """What a key is for."""

    SOLVE = "solve"
    """Begin searches; read, follow and cancel those that it began."""
    ADMIN = "admin"
    """Everything: all searches, rounds, models, pairs, keys and the audit."""


class KeyLimits(Contract):
    """What a key may use. None: no limit."""

    requests_per_minute: int | None = Field(
        default=None, ge=1, le=1_000_000, description="More get 429. Counted by each process of the API."
    )
    concurrent_searches: int | None = Field(
        default=None, ge=1, le=1_000_000, description="Searches that wait or run; one more gets 429."
    )
    tokens_per_day: int | None = Field(
        default=None,
        ge=1,
        le=10**15,
        description="Generated tokens of the searches that were begun, retried or extended since midnight (UTC); once they are "
        "used, 429. Searches under way go on.",
    )
    max_priority: Priority = Field(
        default=Priority.HIGH, description="The highest priority that may be asked for."
    )

    def allows(self, priority: Priority) -> bool:
        """Whether a search of this priority may be asked for."""
        order = list(Priority)
        return order.index(priority) <= order.index(self.max_priority)


class KeyRequest(Contract):
    """A key to be made."""

    name: str = Field(
        pattern=NAME_PATTERN,
        max_length=MAX_NAME_CHARS,
        description="Whose it is; the audit says it.",
        examples=["ada"],
    )
    scope: KeyScope = KeyScope.SOLVE
    limits: KeyLimits = Field(
        default_factory=KeyLimits, examples=[{"requests_per_minute": 60, "concurrent_searches": 4}]
    )


class KeyView(Contract):
    """A key without its secret, which is kept nowhere."""

    id: UUID
    name: str
    scope: KeyScope
    limits: KeyLimits
    created_at: datetime
    revoked_at: datetime | None


class CreatedKey(KeyView):
    """A new key: the only time that it is shown."""

    key: str = Field(description="To be sent as `Authorization: Bearer KEY`.")


class KeyList(Contract):
    """All keys, the newest first."""

    keys: list[KeyView]


class AuditEntry(Contract):
    """One call that was meant to change something, and what became of it."""

    id: UUID
    at: datetime
    key: str = Field(description="Name of the key.")
    key_id: UUID | None = Field(description="None: the operator's key, or no key is asked for.")
    service: str
    method: str
    route: str = Field(
        description="The path with the names of its parameters.", examples=["/models/{version}/serve"]
    )
    target: str = Field(description="The path that was asked for.", examples=["/models/nano@1a2b/serve"])
    status: int = Field(description="HTTP status of the answer.")


class AuditPage(Contract):
    """Entries, the newest first."""

    entries: list[AuditEntry]
    next: UUID | None = Field(description="`before` of the next page; None: this is the last.")

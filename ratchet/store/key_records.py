"""What a service remembers of keys and calls. It needs no database driver."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID

from ratchet.contracts.keys import KeyLimits, KeyScope
from ratchet.store.ids import new_id


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A key that is in force."""

    id: UUID
    name: str
    scope: KeyScope
    limits: KeyLimits
    sha256: str


@dataclass(frozen=True, slots=True)
class AuditedCall:
    """One call that was meant to change something."""

    key: str
    key_id: UUID | None
    service: str
    method: str
    route: str
    target: str
    status: int
    at: datetime = field(default_factory=lambda: datetime.now(UTC))
    id: UUID = field(default_factory=new_id)

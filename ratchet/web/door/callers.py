"""Who is calling: the holder of the configured secret, or of a key in Postgres."""

import asyncio
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from uuid import UUID

from ratchet.contracts.keys import KeyLimits, KeyScope
from ratchet.store.key_records import StoredKey
from ratchet.web.door.secrets import digest, key_id_of, matches

if TYPE_CHECKING:
    # Services without a store have no database driver.
    from ratchet.store.keys import KeyStore

BELIEVED_SECONDS = 2.0
"""So long the keys that were read from Postgres are believed: one that is revoked is refused after this time."""
NEWS_SECONDS = 0.25
"""So often they are read again, at most, for a key that is not among them: it may have just been made."""
OPERATOR = "operator"
"""Who holds the key of the configuration."""
SERVICE = "service"
"""Who holds the token that the services share."""
ANYBODY = "anybody"
"""Who calls a service that asks for no key."""
RESERVED_NAMES = frozenset({OPERATOR, SERVICE, ANYBODY})


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose request this is."""

    name: str
    scope: KeyScope = KeyScope.ADMIN
    key_id: UUID | None = None
    """None: the secret of the configuration."""
    limits: KeyLimits = field(default_factory=KeyLimits)


class Callers:
    """Knows callers by their keys: that of the configuration, and those of the store where there is one.

    Without a key in the configuration nobody needs one. Where keys are stored, one that is sent has to be right all the same.
    """

    def __init__(self, secret: str | None, holder: str, store: "KeyStore | None" = None) -> None:
        self._secret = None if secret is None else digest(secret)
        self._holder = Caller(holder)
        self.store = store
        self._stored: Mapping[UUID, StoredKey] = {}
        self._read_at = -math.inf
        self._reading = asyncio.Lock()

    @property
    def asks_for_key(self) -> bool:
        """Whether a request without a key is refused."""
        return self._secret is not None

    async def find(self, key: str | None) -> Caller | None:
        """Whose key this is; None: nobody's. Raises StoreUnavailableError."""
        if not self.asks_for_key and (key is None or self.store is None):
            return Caller(ANYBODY)
        if key is None:
            return None
        if self._secret is not None and matches(key, self._secret):
            return self._holder
        key_id = key_id_of(key)
        if self.store is None or key_id is None:
            return None
        found = (await self._all(self.store, BELIEVED_SECONDS)).get(key_id)
        if found is None:
            found = (await self._all(self.store, NEWS_SECONDS)).get(key_id)
        if found is None or not matches(key, found.sha256):
            return None
        return Caller(found.name, found.scope, found.id, found.limits)

    def forget(self) -> None:
        """Read the keys again at the next request: they have changed."""
        self._read_at = -math.inf

    async def _all(self, store: "KeyStore", seconds: float) -> Mapping[UUID, StoredKey]:
        """All keys that are in force, as they were at most so long ago. They are few, and are read together, so that wrong
        keys cost no query each."""
        if time.monotonic() - self._read_at > seconds:
            async with self._reading:
                if (now := time.monotonic()) - self._read_at > seconds:
                    self._stored = {key.id: key for key in await store.in_force()}
                    self._read_at = now
        return self._stored

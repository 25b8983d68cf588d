"""UUIDv7 (RFC 9562, section 5.7): time-ordered ids, so that newest-first is an index scan on the primary key.

Ids made within one millisecond by one process are in random order among themselves.
"""

import secrets
import time
from uuid import UUID


def new_id() -> UUID:
    """48 bits of Unix milliseconds, then 74 random bits."""
    value = (time.time_ns() // 1_000_000) << 80 | secrets.randbits(80)
    value = value & ~(0xF << 76) | 0x7 << 76  # version
    value = value & ~(0x3 << 62) | 0x2 << 62  # variant
    return UUID(int=value)

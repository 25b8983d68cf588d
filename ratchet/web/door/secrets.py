"""API keys as text: `rk_<id>_<secret>`. What is kept of one is its SHA-256.

A plain hash is right here, and a slow one (argon2, bcrypt) would be wrong: those make guessing dear where a person chose the
password. A secret of 256 random bits cannot be guessed however fast the hash is, and a slow hash would let every caller without
a key spend our processor time.
"""

import hashlib
import hmac
import re
import secrets
from uuid import UUID

SECRET_BYTES = 32
_FORM = re.compile(r"rk_([0-9a-f]{32})_[A-Za-z0-9_-]{43}")


def new_key(key_id: UUID) -> str:
    """A key that says its id, so that it is looked up by what is no secret."""
    return f"rk_{key_id.hex}_{secrets.token_urlsafe(SECRET_BYTES)}"


def key_id_of(key: str) -> UUID | None:
    """The id that a key says; None where it is none of ours."""
    found = _FORM.fullmatch(key)
    return None if found is None else UUID(found[1])


def digest(key: str) -> str:
    """SHA-256 of a key, hexadecimal."""
    return hashlib.sha256(key.encode(errors="surrogatepass")).hexdigest()


def matches(key: str, kept: str) -> bool:
    """Whether this is the key of the digest that was kept. Takes as long whatever the key is."""
    return hmac.compare_digest(digest(key), kept)

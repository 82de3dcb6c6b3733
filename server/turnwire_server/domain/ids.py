"""Identities."""

import secrets
import time
import uuid
from collections.abc import Callable

# Mints one new identity. Handed in wherever identities are made, so that a test can reproduce them.
Mint = Callable[[], str]

# Every store key begins with the principal; this is the only one until authentication exists.
LOCAL = "local"


def mint_id() -> str:
    """Return a new UUIDv7 (RFC 9562, section 5.7): 48 bits of Unix time in milliseconds, then 74 random bits."""
    milliseconds = time.time_ns() // 1_000_000
    value = (
        (milliseconds & (2**48 - 1)) << 80 | 0x7 << 76 | secrets.randbits(12) << 64 | 0b10 << 62 | secrets.randbits(62)
    )
    return str(uuid.UUID(int=value))

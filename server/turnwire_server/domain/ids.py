"""Identities."""

import secrets
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

# Mints one new identity. Handed in wherever identities are made, so that a test can reproduce them.
Mint = Callable[[], str]

# Every store key begins with the principal; this is the only one until authentication exists.
LOCAL = "local"


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _machine_now() -> datetime:
    return datetime.now(UTC)


def mint_id(now: Callable[[], datetime] = _machine_now) -> str:
    """Return a new UUIDv7 (RFC 9562, section 5.7): 48 bits of Unix time in milliseconds, then 74 random bits.

    Whoever has a clock hands its `now` in, so that an identity tells the same time as everything else.
    """
    milliseconds = (now() - _EPOCH) // timedelta(milliseconds=1)
    value = (
        (milliseconds & (2**48 - 1)) << 80 | 0x7 << 76 | secrets.randbits(12) << 64 | 0b10 << 62 | secrets.randbits(62)
    )
    return str(uuid.UUID(int=value))

"""Identities."""

import os
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

# Mints one new identity. Handed in wherever identities are made, so that a test can reproduce them.
Mint = Callable[[], str]

# Every store key begins with the principal; this is the only one until authentication exists.
LOCAL = "local"


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)

# The six bits of a UUID that say what it is, and what they are in a UUIDv7.
_FIXED = 0xF << 76 | 0b11 << 62
_VERSION_AND_VARIANT = 0x7 << 76 | 0b10 << 62


def _machine_now() -> datetime:
    return datetime.now(UTC)


def mint_id(now: Callable[[], datetime] = _machine_now) -> str:
    """Return a new UUIDv7 (RFC 9562, section 5.7): 48 bits of Unix time in milliseconds, then 74 random bits.

    Whoever has a clock hands its `now` in, so that an identity tells the same time as everything else.
    """
    milliseconds = (now() - _EPOCH) // _MILLISECOND & 2**48 - 1
    random = int.from_bytes(os.urandom(10)) & ~_FIXED
    return str(uuid.UUID(int=milliseconds << 80 | random | _VERSION_AND_VARIANT))

"""Fingerprints of requests: what tells whether two requests ask for the same."""

import hashlib
from collections.abc import Collection

from google.protobuf.message import Message


def fingerprint(request: Message, exclude: Collection[str]) -> bytes:
    """Return 32 bytes that are the same for requests with the same content, the fields in `exclude` aside."""
    content = type(request)()
    content.CopyFrom(request)
    for field in exclude:
        content.ClearField(field)
    return hashlib.sha256(content.SerializeToString(deterministic=True)).digest()

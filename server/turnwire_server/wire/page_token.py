"""Page tokens: a cursor, bound to the rpc and to the filters of the listing it belongs to.

A token is the cursor and a check over all three, in URL-safe base64. It carries nothing secret, and whoever forges one
gets no more than a page of what they may read anyway.
"""

import base64
import binascii
import hashlib
import struct

from google.protobuf.message import Message

from turnwire_server.domain.errors import InvalidPageTokenError
from turnwire_server.wire.fingerprint import fingerprint

_CURSOR = struct.Struct(">q")
_CHECK_BYTES = 16


def filters_of(request: Message) -> bytes:
    """Return the fingerprint of a listing's filters: everything but where the page begins and how long it is."""
    return fingerprint(request, ("page_token", "page_size"))


def encode_page_token(rpc: str, filters: bytes, cursor: int) -> str:
    """Return the token for the page of a listing that begins at `cursor`."""
    packed = _CURSOR.pack(cursor)
    return base64.urlsafe_b64encode(packed + _check(rpc, filters, packed)).decode()


def decode_page_token(rpc: str, filters: bytes, token: str) -> int:
    """Return the cursor of a token. Errors: InvalidPageTokenError."""
    try:
        data = base64.b64decode(token.encode("ascii"), altchars=b"-_", validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise InvalidPageTokenError from None
    packed, check = data[: _CURSOR.size], data[_CURSOR.size :]
    if len(packed) != _CURSOR.size or check != _check(rpc, filters, packed):
        raise InvalidPageTokenError
    return int(_CURSOR.unpack(packed)[0])


def _check(rpc: str, filters: bytes, packed: bytes) -> bytes:
    return hashlib.blake2b(packed + filters, digest_size=_CHECK_BYTES, key=rpc.encode()[:64]).digest()

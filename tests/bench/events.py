"""The event that every contender streams, and the order for such a stream.

All contenders send events of the same size: the encoded turnwire.v1.Event has EVENT_BYTES, which is what a delta of
about 50 characters takes with its ids. In a response it is a frame: three bytes more.
"""

import json
import time
from dataclasses import asdict, dataclass

# The encoded size of the event that is streamed, in bytes. A few bytes vary with the offset and the time.
EVENT_BYTES = 200

# How many code points a delta has so that our server's events have that size.
DELTA_LENGTH = 55

# The bytes that a frame has besides its event: tag, and a length of two bytes.
FRAME_BYTES = 3

# Stands for the ids of a session, of an inference and of a block.
_IDENTITY = b"0199c0de-0000-7000-8000-000000000000"


@dataclass(frozen=True, slots=True)
class Order:
    """What one stream of a peer has to send: `events` events, `batch` of them in each message.

    It begins at the wall clock time `begin_at` (seconds), and with `pace_seconds` there is that much time before each.
    """

    events: int
    batch: int = 1
    begin_at: float = 0.0
    pace_seconds: float = 0.0

    def encode(self) -> bytes:
        """Return the order as JSON."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def decode(cls, body: bytes | str) -> "Order":
        """Return the order that `body` is."""
        return cls(**json.loads(body))

    @property
    def seconds_left(self) -> float:
        """How long it is until the stream begins."""
        return max(0.0, self.begin_at - time.time())


def frame(sequence: int, nanos: int) -> bytes:
    """Return an event as a frame: an LlmDelta made at a time, in nanoseconds since the epoch.

    It has the fields that our server's deltas have, and EVENT_BYTES bytes.
    """
    body = b"".join(
        (
            b"\x09" + sequence.to_bytes(8, "little"),
            _field(2, _IDENTITY),
            _field(3, _IDENTITY),
            _field(4, b"\x08" + _varint(nanos // 10**9) + b"\x10" + _varint(nanos % 10**9)),
            _field(5, _IDENTITY),
            b"\x30\x01",
        )
    )
    # What is left is the delta, with three bytes of tags and lengths around it and its own.
    return b"".join((b"\x0a", _varint(EVENT_BYTES), body, _field(8, _field(1, b"x" * (EVENT_BYTES - len(body) - 4)))))


def grpc_message(body: bytes) -> bytes:
    """Return a message as it goes over gRPC: not compressed, with its length."""
    return b"\x00" + len(body).to_bytes(4, "big") + body


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)

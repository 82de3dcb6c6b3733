"""Requests below gRPC: HTTP/2 as no gRPC client writes it, with odd headers and frames.

What is checked is that the server answers or hangs up, in time, and goes on serving; what it says in HTTP/2 is the
business of the transport.
"""

import socket
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass

from fuzz.draws import Draws
from fuzz.rpcs import rpcs
from fuzz.wire import delimited

SECONDS_MAX = 10.0

# How long a client waits that finds nobody to listen: a server that gRPC has ended listens again soon.
_REFUSED_SECONDS = 0.05

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY = 0, 1, 3, 4, 6, 7
_END_STREAM, _ACK, _END_HEADERS = 1, 1, 4

Header = tuple[bytes, bytes]

_TIMEOUTS = (
    b"1S", b"", b"0n", b"1n", b"0S", b"99999999H", b"100000000S", b"-1S", b"1", b"S", b"1.5S", b"x", b"1S1S", b" 1S",
    b"1s", b"1\xff", b"9" * 400 + b"S", b"00000000S", b"+1S", b"0x1S",
)  # fmt: skip
_TYPES = (
    b"application/grpc",
    b"application/grpc+proto",
    b"application/grpc+json",
    b"application/json",
    b"",
    b"text/plain",
)
_ENCODINGS = (b"identity", b"gzip", b"deflate", b"nope", b"")
_MORE: Sequence[Header] = (
    (b"x-a-bin", b"not base64 !"),
    (b"x-a-bin", b"AAEC"),
    (b"grpc-encoding", b"gzip"),
    (b"grpc-accept-encoding", b"nope,gzip,,"),
    (b"grpc-message-type", b"\x00"),
    (b"X-Upper", b"case"),
    (b"", b"no name"),
    (b"x-control", b"a\r\nb: c"),
    (b"x-bytes", bytes(range(128, 256))),
    (b":late", b"pseudo"),
    (b":authority", b"again"),
    (b"te", b"gzip"),
    (b"content-length", b"-5"),
    (b"connection", b"upgrade"),
    (b"grpc-status", b"0"),
    (b"grpc-tags-bin", b"AAAA"),
    (b"grpc-trace-bin", b"////"),
)
_PATHS = (
    b"/turnwire.v1.None/Wait",
    b"/turnwire.v1.InferenceService/None",
    b"/",
    b"",
    b"//",
    b"*",
    b"/a" * 2000,
    "/ä".encode(),
    b"/x\xff",
    b"/turnwire.v1.InferenceService/\xff",
    b"\xc3",
)


@dataclass(frozen=True, slots=True)
class RawCall:
    """All that a client sends on a connection of its own.

    `is_whole`: it is a whole call, which has to end. `has_text_path`: no path in it is anything but UTF-8; over one
    that is, gRPC itself gives up serving, and the server has to listen again.
    """

    sent: bytes
    is_whole: bool
    has_text_path: bool


def make_call(draws: Draws) -> RawCall:
    """Return one call, with a few things wrong with it."""
    fields = _fields(draws)
    end = 0 if draws.once_in(8) else _END_STREAM
    body = _body(draws)
    sent = _PREFACE + _frame(_SETTINGS, 0, 0, b"")
    sent += _frame(_HEADERS, _END_HEADERS, 1, b"".join(_literal(*field) for field in fields))
    for part in body[:-1]:
        sent += _frame(_DATA, 0, 1, part)
    sent += _frame(_DATA, end, 1, body[-1])
    if draws.once_in(6):
        odd = (
            _frame(_RST_STREAM, 0, 1, struct.pack(">I", 8)),
            _frame(_RST_STREAM, 0, 5, b"x"),
            _frame(_PING, 0, 0, b"12345678") * 50,
            _frame(99, 255, 1, b"unknown"),
            _frame(_GOAWAY, 0, 0, b"\x00" * 8),
            _frame(_DATA, 0, 1, b"after the end"),
            b"\xff" * 20,
        )
        # The call may be taken back, and need not be answered then.
        return RawCall(sent + draws.pick(odd), is_whole=False, has_text_path=_has_text_path(fields))
    is_whole = bool(end) and _has_message(b"".join(body))
    return RawCall(sent, is_whole, _has_text_path(fields))


def _fields(draws: Draws) -> list[Header]:
    rpc = rpcs()[draws.pick(sorted(rpcs()))]
    path = draws.pick(_PATHS) if draws.once_in(5) else rpc.path.encode()
    fields: list[Header] = [
        (b":method", b"POST" if not draws.once_in(12) else draws.pick((b"GET", b"PUT", b""))),
        (b":scheme", b"http" if not draws.once_in(12) else draws.pick((b"https", b"", b"x"))),
        (b":path", path),
        (b":authority", b"127.0.0.1"),
        (b"content-type", draws.pick(_TYPES) if draws.once_in(6) else _TYPES[0]),
        (b"te", b"trailers"),
        (b"grpc-timeout", draws.pick(_TIMEOUTS) if draws.once_in(2) else _TIMEOUTS[0]),
    ]
    if draws.once_in(4):
        fields.append((b"grpc-encoding", draws.pick(_ENCODINGS)))
    fields += [draws.pick(_MORE) for _ in range(draws.number(0, 3))]
    if draws.once_in(12):
        fields += [(f"x-{number}".encode(), b"y" * 10) for number in range(draws.pick((100, 250)))]
    if draws.once_in(12):
        fields.pop(draws.number(0, len(fields) - 1))
    if draws.once_in(12):
        fields.reverse()
    return fields


def _has_text_path(fields: Sequence[Header]) -> bool:
    try:
        for name, value in fields:
            if name == b":path":
                value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _body(draws: Draws) -> list[bytes]:
    """Return the content of the DATA frames: messages, each after a flag and its length, which may lie."""
    message = draws.pick((b"", delimited(1, b"finished"), b"\xff\xff", b"\x00" * 5000))
    flag = draws.pick((1, 2, 255)) if draws.once_in(6) else 0
    length = len(message)
    if draws.once_in(6):
        length = draws.pick((0, length + 1, 2**24, 2**32 - 1))
    framed = struct.pack(">BI", flag, length) + message
    match draws.number(0, 7):
        case 0:
            return [framed, framed]
        case 1:
            return [b""]
        case 2:
            return [framed[:3], framed[3:]]
        case 3:
            return [framed[:2]]
        case _:
            return [framed]


def _has_message(body: bytes) -> bool:
    """Whether there is a message in a body. gRPC takes a call that ends without one for a cancelled one."""
    return len(body) >= 5 and int.from_bytes(body[1:5], "big") <= len(body) - 5


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def _literal(name: bytes, value: bytes) -> bytes:
    """Encode a header that nobody is to remember (RFC 7541, section 6.2.2), without Huffman coding."""
    return b"\x00" + _text(name) + _text(value)


def _text(text: bytes) -> bytes:
    length, out = len(text), bytearray()
    if length < 127:
        return bytes([length]) + text
    out.append(127)
    length -= 127
    while length >= 128:
        out.append(length % 128 + 128)
        length //= 128
    out.append(length)
    return bytes(out) + text


def exchange(address: str, call: RawCall) -> bool:
    """Send a call, and return whether the server ended the stream, or the connection, in time.

    What is not whole need not be answered: then the client just leaves.
    """
    connection = _connect(address)
    if not connection:
        return False
    with connection:
        connection.settimeout(SECONDS_MAX)
        try:
            connection.sendall(call.sent)
            return not call.is_whole or _read_until_end(connection)
        except ConnectionError:
            return True
        except TimeoutError:
            return False


def _connect(address: str) -> socket.socket | None:
    """Return a connection; None if nobody listens for long."""
    host, _, port = address.rpartition(":")
    give_up = time.monotonic() + SECONDS_MAX
    while time.monotonic() < give_up:
        try:
            return socket.create_connection((host, int(port)), SECONDS_MAX)
        except ConnectionRefusedError:
            time.sleep(_REFUSED_SECONDS)
        except TimeoutError:
            break
    return None


def _read_until_end(connection: socket.socket) -> bool:
    received = bytearray()
    while chunk := connection.recv(65536):
        received += chunk
        while len(received) >= 9 and len(received) >= 9 + int.from_bytes(received[:3], "big"):
            length, kind, flags = int.from_bytes(received[:3], "big"), received[3], received[4]
            stream = int.from_bytes(received[5:9], "big")
            del received[: 9 + length]
            is_end = kind in (_HEADERS, _DATA) and bool(flags & _END_STREAM)
            if stream == 1 and (is_end or kind == _RST_STREAM):
                return True
            if kind == _GOAWAY:
                return True
            if kind == _SETTINGS and not flags & _ACK:
                connection.sendall(_frame(_SETTINGS, _ACK, 0, b""))
    return True

"""The encoding of protobuf, by hand: what a generated class writes, and what none would."""

import struct

VARINT, FIXED64, LENGTH, GROUP_BEGIN, GROUP_END, FIXED32 = range(6)

# Bytes that are no UTF-8: a lone continuation, an overlong slash, half a character, a surrogate, beyond Unicode.
NO_UTF8 = (b"\x80", b"\xc0\xaf", b"\xe2\x82", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"a\xff\xfe")


def varint(value: int) -> bytes:
    """Encode a number; a negative one as 64 bits in two's complement."""
    value &= 2**64 - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def tag(number: int, wire_type: int) -> bytes:
    """Encode what precedes a value."""
    return varint(number << 3 | wire_type)


def delimited(number: int, payload: bytes) -> bytes:
    """Encode a field with a length: text, bytes, a message, or packed numbers."""
    return tag(number, LENGTH) + varint(len(payload)) + payload


def zigzag(value: int) -> int:
    """Return the number that stands for a signed one of type sint."""
    return value << 1 ^ value >> 63


def fixed(value: float, form: str) -> bytes:
    """Encode a number of constant length; `form` is that of struct."""
    return struct.pack(f"<{form}", value)


def field_of_type(number: int, wire_type: int, value: int) -> bytes:
    """Encode a field of any type, legal or not: of types 6 and 7 there is nothing but the tag."""
    head = tag(number, wire_type)
    match wire_type:
        case 0:
            return head + varint(value)
        case 1:
            return head + fixed(value & 2**64 - 1, "Q")
        case 2:
            return head + varint(3) + b"abc"
        case 3:
            return head + tag(1, VARINT) + varint(value) + tag(number, GROUP_END)
        case 5:
            return head + fixed(value & 2**32 - 1, "I")
        case _:
            return head


def nested_groups(number: int, depth: int) -> bytes:
    """Encode an unknown field that is nested that deep."""
    return tag(number, GROUP_BEGIN) * depth + tag(number, GROUP_END) * depth


def nested_messages(number: int, depth: int) -> bytes:
    """Encode a field that has itself in it, that deep."""
    payload = b""
    for _ in range(depth):
        payload = delimited(number, payload)
    return payload


# What stands in the place of a whole field, and breaks the encoding; how much of it a parser forgives is its own.
BROKEN = (
    tag(1, GROUP_BEGIN),  # never ended
    tag(1, GROUP_END),  # never begun
    tag(1, GROUP_BEGIN) + tag(2, GROUP_END),
    tag(0, VARINT) + b"\x01",
    tag(2**29, VARINT) + b"\x01",
    b"\xff" * 10 + b"\x01",
    tag(1, VARINT) + b"\xff" * 11,
    tag(1, LENGTH) + varint(2**31 - 1),
    tag(1, LENGTH) + varint(2**63),
    tag(1, LENGTH) + b"\x05ab",
    tag(1, FIXED64) + b"\x00" * 3,
    tag(1, 6),
    tag(1, 7),
    b"\x80",
)

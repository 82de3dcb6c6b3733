"""Values of fields: what the rules of the contract allow, and with a flaw what they only just do not."""

import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from google.protobuf.descriptor import FieldDescriptor

from fuzz import texts, wire
from fuzz.draws import Draws
from fuzz.world import (
    INFERENCE_NAMES,
    LISTINGS,
    PROFILES,
    SESSION_NAMES,
    SESSIONS,
    inference_stand_in,
    log_stand_in,
    page_stand_in,
)

Rules = Mapping[str, Any]
_NO_RULES: Rules = {}

_KEYS = ("key-1", "key-2", "key-3", "!", "~" * 128)
_META_KEYS = (
    "a.b@v1", "geppetto.agent_mode@v1", "geppetto.session_id@v1", "geppetto.inference_config@v1",
    "geppetto.tool_config@v1",
    "geppetto.agent_mode_allowed_tools@v1", "turnwire.output_repair@v1", "x_1.y_2@v99",
)  # fmt: skip
_BAD_META_KEYS = ("", "a", "a.b", "a.b@v0", "A.b@v1", "a.b@v1\n", "\na.b@v1", "a.b@v\u0661", "ä.b@v1", "a.b@v1.c")
_BAD_IDS = ("", " ", "a b", "a/b", "ä", "x" * 129, "a\n", "\na", "a\x00", "../a", "a%00", "\u0661", "\u200b")

# What is not a rule's but a program's to stumble over.
_NUMBERS = (0, 1, 2, 3, 7, 50, 100, 1000, 2**31 - 1, 2**31, 2**32 - 1)
_BIG_NUMBERS = (2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1)
_DOUBLES = (0.0, 1.0, 0.5, 2.0, 1e-320, -0.0)
_BAD_DOUBLES = (-1e-320, 2.0000000000000004, 1e308, float("inf"), float("-inf"), float("nan"))
_BAD_ENUMS = (99, -1, 2**31 - 1, 2**31, 2**32, -(2**31), 2**63)

# Texts of more bytes than that are seldom made at their limit: each costs as much as a hundred requests.
_COSTLY_BYTES = 70_000
_COSTLY_TIMES = 12


def pauses() -> Sequence[str]:
    """Return names of pauses: those of the world, and others."""
    return tuple(
        f"{inference_stand_in(name)}.{step}" for name in ("paused", "paused2", "running", "never") for step in (1, 0, 2)
    )


def _own_ids() -> Mapping[str, Sequence[str]]:
    """Return what fields of a name, wherever they are, hold."""
    tokens = [page_stand_in(listing) for listing in LISTINGS]
    return {
        "session_id": SESSION_NAMES,
        "inference_id": [inference_stand_in(name) for name in INFERENCE_NAMES],
        "log": ["", *(log_stand_in(session) for session in SESSIONS), "other"],
        "pause": pauses(),
        "profile": ["", *PROFILES, "nope"],
        "idempotency_key": _KEYS,
        "tool_call": ("call_1", "call_2", "call_3", "call_4", "own"),
        "tool_choice": ("", "auto", "none", "required", "get_weather", "nope"),
        "page_token": [
            "",
            *tokens,
            *(token + "A" for token in tokens[:2]),
            "A" + tokens[0],
            tokens[1][:-1],
            "=" * 32,
            "Ä",
        ],
    }


_IDS = _own_ids()

# Valid texts for each pattern of the contract; a pattern that is new needs a line here.
_OF_PATTERN: Mapping[str, Sequence[str]] = {
    "^[A-Za-z0-9._:-]{1,128}$": SESSION_NAMES,
    "^[!-~]{1,128}$": _KEYS,
    "^[a-z0-9_]+[.][a-z0-9_]+@v[1-9][0-9]*$": _META_KEYS,
    "^[A-Za-z0-9._/-]{1,63}$": ("made", "a", "x" * 63, "a/b.c-d_e"),
    "^[A-Za-z0-9_-]{1,64}$": ("ask_me", "get_weather", "erase", "x" * 64),
}


def scalar(draws: Draws, field: FieldDescriptor, rules: Rules, comment: str, owner: FieldDescriptor | None) -> bytes:
    """Return a field that is no message, with its tag. `owner` is the map that it is the key or the value of."""
    kinds = FieldDescriptor
    match field.type:
        case kinds.TYPE_STRING:
            return wire.delimited(field.number, _text(draws, field, rules, comment, owner))
        case kinds.TYPE_BYTES:
            return wire.delimited(field.number, _bytes(draws, rules.get("bytes", {})))
        case kinds.TYPE_ENUM:
            known = [*field.enum_type.values_by_number] if field.enum_type else []
            value = draws.pick(_BAD_ENUMS if draws.is_flawed(6) else known)
            return wire.tag(field.number, wire.VARINT) + wire.varint(value)
        case kinds.TYPE_BOOL:
            value = draws.pick((2, 2**63)) if draws.is_flawed(12) else draws.number(0, 1)
            return wire.tag(field.number, wire.VARINT) + wire.varint(value)
        case kinds.TYPE_DOUBLE:
            double = draws.pick(_BAD_DOUBLES if draws.is_flawed(4) else _DOUBLES)
            return wire.tag(field.number, wire.FIXED64) + struct.pack("<d", double)
        case kinds.TYPE_UINT32 | kinds.TYPE_UINT64 | kinds.TYPE_INT64 | kinds.TYPE_INT32:
            return wire.tag(field.number, wire.VARINT) + wire.varint(_number(draws, field, rules))
        case _:
            msg = f"{field.full_name} has a type that no request had before: teach fuzz.values to make it"
            raise NotImplementedError(msg)


def _number(draws: Draws, field: FieldDescriptor, rules: Rules) -> int:
    limits: Rules = next((rules[key] for key in ("uint32", "uint64", "int32", "int64") if key in rules), _NO_RULES)
    least, most = int(limits.get("gte", 0)), int(limits.get("lte", 2**31))
    if draws.is_flawed(4):
        return draws.pick((least - 1, most + 1, -1, *_BIG_NUMBERS))
    big = _BIG_NUMBERS if field.type in (FieldDescriptor.TYPE_UINT64, FieldDescriptor.TYPE_INT64) else ()
    fitting: list[int] = [*(number for number in _NUMBERS if least <= number <= most), least, most, *big]
    return draws.pick(fitting)


def _bytes(draws: Draws, limits: Rules) -> bytes:
    most = int(limits.get("maxLen", 100))
    if draws.is_flawed(4):
        return b"" if most > _COSTLY_BYTES and not draws.once_in(_COSTLY_TIMES) else b"\x00" * (most + 1)
    return draws.pick((b"a", b"\x00\xff", b"\x89PNG\r\n\x1a\n", b"x" * 5000))


def _text(draws: Draws, field: FieldDescriptor, rules: Rules, comment: str, owner: FieldDescriptor | None) -> bytes:
    if draws.is_flawed(10):
        return draws.pick(wire.NO_UTF8)
    limits = rules.get("string", {})
    if draws.is_flawed(4):
        return draws.pick(_flawed_texts(draws, limits)).encode()
    name = owner.name if owner and field.number == 1 else field.name
    text = _fitting(draws, name, limits, comment, is_key=owner is not None and field.number == 1)
    return text.encode("utf-8", "surrogatepass") if text.isascii() else text.encode(errors="replace")


def _fitting(draws: Draws, name: str, limits: Rules, comment: str, *, is_key: bool) -> str:
    """Return a text as the contract wants it."""
    if not is_key and (make := _maker_of(name, comment)):
        return make(draws)
    if name in _IDS:
        return draws.pick(_IDS[name])
    if pattern := limits.get("pattern"):
        return draws.pick(_OF_PATTERN[pattern])
    if "in" in limits:
        return str(draws.pick(limits["in"]))
    if limits.get("uri"):
        return draws.pick(("https://example.org/a.png", "data:,x", "file:///etc/passwd", "http://[::1]:0/%00", "a:b"))
    most, is_costly = _limit(limits)
    if not draws.once_in(8) or (is_costly and not draws.once_in(_COSTLY_TIMES)):
        text = texts.word(draws)
        return text if text or not limits.get("minLen") else "call_1"
    return ("é" if "maxLen" in limits else "x") * most


def _maker_of(name: str, comment: str) -> Callable[[Draws], str] | None:
    """Return what makes the texts that the contract says are JSON."""
    if "JSON Schema" in comment and "schema" in name:
        return texts.schema_text
    if name == "engine_options":
        return texts.engine_options
    if "JSON" in comment or name in ("metadata", "data"):
        is_object = "one JSON object" in comment or "JSON text of one object" in comment
        return lambda draws: texts.json_text(draws, is_object=is_object)
    return None


def _limit(limits: Rules) -> tuple[int, bool]:
    most = int(limits.get("maxLen", limits.get("maxBytes", 100)))
    return most, most > _COSTLY_BYTES


def _flawed_texts(draws: Draws, limits: Rules) -> Sequence[str]:
    most, is_costly = _limit(limits)
    if "@v" in limits.get("pattern", ""):
        return _BAD_META_KEYS
    if "pattern" in limits:
        return _BAD_IDS
    if is_costly and not draws.once_in(_COSTLY_TIMES):
        return texts.BROKEN_JSON
    return ("x" * (most + 1), "é" * most if "maxBytes" in limits else "é" * (most + 1), "", *texts.BROKEN_JSON)


# --- messages of others -----------------------------------------------------------------------------------

_SECONDS = (1, 0, 2, 3600, 86_400)
_BAD_SECONDS = (-1, 315_576_001, 2_592_001, 86_401, 315_576_000_000, 315_576_000_001, 2**63 - 1, -(2**63), 2**31)
_NANOS = (0, 1, 500_000_000, 999_999_999)
_BAD_NANOS = (-1, 1_000_000_000, 2**31 - 1, -(2**31), 2**40)
_PATHS = ("display_name", "labels", "metadata", "profile", "config")
_BAD_PATHS = (
    "",
    "session_id",
    "config.model",
    "labels.a",
    "*",
    "Config",
    "display_name ",
    "x" * 10_000,
    "config.",
    ".",
    "\x00",
)


def _duration(draws: Draws, _rules: Rules) -> bytes:
    seconds = draws.pick(_BAD_SECONDS if draws.is_flawed(4) else _SECONDS)
    nanos = draws.pick(_BAD_NANOS if draws.is_flawed(6) else _NANOS)
    return (wire.tag(1, wire.VARINT) + wire.varint(seconds)) + (wire.tag(2, wire.VARINT) + wire.varint(nanos))


def _field_mask(draws: Draws, _rules: Rules) -> bytes:
    paths = [draws.pick(_BAD_PATHS if draws.is_flawed(4) else _PATHS) for _ in range(draws.number(1, 3))]
    return b"".join(wire.delimited(1, path.encode()) for path in paths)


# How messages of google.protobuf are made, whose rules are not those of our contract.
SPECIAL: Mapping[str, Callable[[Draws, Rules], bytes]] = {
    "google.protobuf.Duration": _duration,
    "google.protobuf.FieldMask": _field_mask,
}

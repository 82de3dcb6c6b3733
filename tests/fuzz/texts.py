"""Texts that requests have inside: plain ones, JSON, JSON Schemas, and scripts for the scripted engine."""

import json
from typing import Any

from fuzz.draws import Draws
from support.server_log import SCRIPTED_CRASH

WORDS = (
    "", "a", "hello", "two words", "naïve café 日本語", "🦊👩‍👩‍👧", "a\u0301\u0327", "\u202eabc\u2066", "\x00",
    "a\x00b", "\n\r\t\x0b", "\x7f\x85",
    "\ufeff", "\ufffe\uffff", "'; DROP TABLE session; --", "%s%n{0}${x}", "../../etc/passwd", "%", "_",
    "null", "-1", "NaN", "\\", '"', "<b>", "*",
)  # fmt: skip

# JSON texts that readers disagree on, or that are more than they look.
VALID_JSON = (
    "{}", '""', "null", "true", "0", "-0", "[]", "1e400", "-1E-999", "0.1e1", '"\\ud83e\\udd8a"', '"\\u0000"',
    '{"":{}}',
    '{"a":1,"a":2}', " \t\r\n{} ", "9" * 5000, "1." + "0" * 400, "[" * 100 + "]" * 100,
    '{"a":' * 100 + "1" + "}" * 100,
    '{"a":[1,2,{"b":null}],"c":"d"}', '{"__proto__":1,"__class__":2}', '"\\ud800"', '{"\\udfff":1}',
)  # fmt: skip
BROKEN_JSON = (
    "{", "}", "[1,]", "{'a':1}", '{"a":1,}', '{"a"}', "nul", "NaN", "Infinity", "-", "01", "+1", "1.", ".5",
    "0x1", '"', '"\\x"', '"\n"',
    "{}{}", "{} x", "\ufeff{}", "\x00", "[" * 100_000, "[" * 5000 + "]" * 5000, '{"a":' * 3000, "\u00a0{}",
    "// {}", '"\\u12"', " ",
)  # fmt: skip

_TOOLS = ("ask_me", "get_weather", "erase", "nobody", "A-b_9", "x" * 64)
_CALLS = ("", "call_1", "call_2", "call_3", "own", "x" * 256)
_DURATIONS = ("0s", "0.000000001s", "0.01s", "1s", "3600s", "0.0s")
_BAD_DURATIONS = (
    "-1s",
    "3601s",
    "1",
    "s",
    "",
    "1e3s",
    "315576000001s",
    "9999999999999999999s",
    "NaNs",
    "infs",
    "1.s",
    "0.1234567890s",
    5,
    None,
)
_COUNTS = (0, 1, 2, 16, 1000)
_BIG = (
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**32,
    2**53 + 1,
    2**63 - 1,
    2**63,
    2**64 - 1,
    2**64,
    -1,
    1.5,
    "7",
    "x",
    1e400,
    None,
    True,
)
_REASONS = ("", "ENGINE_UNAVAILABLE", "ENGINE_RATE_LIMITED", "ENGINE_REJECTED", "ENGINE_STALLED", "CONTENT_REFUSED")
_BAD_REASONS = ("ENGINE_", "INTERNAL", "SESSION_NOT_FOUND", "x" * 65, "\x00", 3)
_FINISHES = (
    "FINISH_CLASS_UNSPECIFIED",
    "FINISH_CLASS_COMPLETED",
    "FINISH_CLASS_MAX_TOKENS",
    "FINISH_CLASS_MAX_ITERATIONS",
)
_BAD_FINISHES: tuple[Any, ...] = ("FINISH_CLASS_ERROR", "FINISH_CLASS_INTERRUPTED", "nothing", 99, -1, 2**31, 1.5, [])
_KEYS = ("", "type", "a", "properties", "$ref", "script", "calls", "x" * 300)


def word(draws: Draws) -> str:
    """Return a short text, of the kinds that programs stumble over."""
    return draws.pick(WORDS)


def json_text(draws: Draws, *, is_object: bool = False) -> str:
    """Return JSON text; with a flaw it is none, or none of an object."""
    if draws.is_flawed(4):
        return draws.pick((*BROKEN_JSON, *(text for text in VALID_JSON if is_object)))
    if is_object:
        return json.dumps({draws.pick(_KEYS): _value(draws, 3) for _ in range(draws.number(0, 3))})
    return draws.pick(VALID_JSON) if draws.once_in(2) else json.dumps(_value(draws, 3))


def _value(draws: Draws, depth: int) -> Any:
    kind = draws.number(0, 6 if depth else 4)
    match kind:
        case 0:
            return draws.pick((None, True, False))
        case 1 | 2:
            return draws.pick((0, -1, 1.5, 2**53 + 1, 2**64, -(2**63)))
        case 3 | 4:
            return word(draws)
        case 5:
            return [_value(draws, depth - 1) for _ in range(draws.number(0, 3))]
        case _:
            return {draws.pick(_KEYS): _value(draws, depth - 1) for _ in range(draws.number(0, 3))}


# --- scripts --------------------------------------------------------------------------------------------


def engine_options(draws: Draws) -> str:
    """Return options of the scripted engine: a script, or with a flaw something that is none."""
    if draws.is_flawed(6):
        odd: list[Any] = [[], None, 5, "x", {"calls": 5}, {"calls": [None]}, {"calls": [[]]}, {"nope": 1}, {}]
        return json.dumps({draws.pick(("script", "Script", "model")): draws.pick(odd)})
    return json.dumps({"script": _script(draws)})


def _script(draws: Draws) -> dict[str, Any]:
    count = draws.pick((129, 128)) if draws.is_flawed(12) else draws.number(0, 3)
    calls = [_call(draws) for _ in range(min(count, 3))]
    script: dict[str, Any] = {"calls": calls * (count // max(len(calls), 1)) if count > len(calls) else calls}
    if draws.once_in(4):
        script["pace"] = draws.pick(_BAD_DURATIONS if draws.is_flawed(2) else _DURATIONS)
    if draws.once_in(4):
        script["deltaLength"] = draws.pick(_BIG if draws.is_flawed(2) else _COUNTS)
    return script


def _call(draws: Draws) -> dict[str, Any]:
    call: dict[str, Any] = {"steps": [_step(draws) for _ in range(draws.number(0, 3))]}
    if draws.once_in(4):
        names = ("inputTokens", "outputTokens", "cachedTokens", "reasoningTokens")
        big = (2**31, 2**63 - 1, 2**63, 2**64 - 1)
        call["usage"] = {draws.pick(names): draws.pick(_BIG if draws.is_flawed(2) else (*_COUNTS, *big))}
    if draws.once_in(4):
        call["finishClass"] = draws.pick(_BAD_FINISHES if draws.is_flawed(2) else _FINISHES)
    return call


def _step(draws: Draws) -> Any:
    if draws.is_flawed(8):
        odd: tuple[Any, ...] = ({}, None, [], 5, {"text": {}, "hang": {}}, {"nope": {}}, {"text": None}, {"text": "x"})
        return draws.pick(odd)
    match draws.pick(("text", "toolCall", "thinking", "hang", "fail", "pause", "crash")):
        case "text" | "thinking" as kind:
            repeat = draws.pick((*_BIG, 1_000_001)) if draws.is_flawed(6) else draws.pick((0, 1, 2, 100, 5000))
            return {kind: {"text": word(draws), "repeat": repeat}}
        case "toolCall":
            args = json_text(draws, is_object=True)
            return {"toolCall": {"id": draws.pick(_CALLS), "name": draws.pick(_TOOLS), "args": args[:20_000]}}
        case "hang":
            return {"hang": {}}
        case "fail":
            reason = draws.pick(_BAD_REASONS if draws.is_flawed(4) else _REASONS)
            return {"fail": {"reason": reason, "message": word(draws)}}
        case "pause":
            return {"pause": draws.pick(_BAD_DURATIONS if draws.is_flawed(4) else _DURATIONS)}
        case _:
            return {"crash": {"message": SCRIPTED_CRASH}}


# --- schemas --------------------------------------------------------------------------------------------

_SIMPLE: tuple[Any, ...] = (
    True, False, {}, {"type": "object"}, {"type": ["string", "null"]}, {"enum": [1, "a", None]}, {"minimum": -0.0},
    {"multipleOf": 0.01}, {"pattern": "^(a+)+$"}, {"pattern": "(?<=a)b\\1"}, {"format": "date-time"},
    {"$ref": "#"}, {"minLength": 2**53},
    {"$schema": "http://json-schema.org/draft-07/schema#"}, {"uniqueItems": True}, {"$comment": "x" * 1000},
    {"required": ["a", "a\x00"]}, {"maxProperties": 0}, {"deprecated": True},
)  # fmt: skip
_FLAWED: tuple[Any, ...] = (
    {"type": "nothing"}, {"type": 5}, {"$ref": "http://127.0.0.1:1/x"}, {"$ref": "file:///etc/passwd"},
    {"$ref": "#/nowhere"}, {"$ref": "#anchor"},
    {"pattern": "("}, {"pattern": "a{99999}{99999}"}, {"multipleOf": 0}, {"properties": []},
    {"required": "a"}, {"allOf": []}, {"$ref": 5},
    {"$schema": "http://127.0.0.1:1/none"}, {"$schema": 5}, {"$id": "::::"}, {"$id": 5},
    {"$ref": "#/$defs/a"}, {"$dynamicRef": "#"}, {"$vocabulary": {}}, {"$anchor": "a"}, {"title": 5},
    {"items": 5}, {"minLength": -1}, {"minimum": "a"},
    {"patternProperties": {"(": {}}}, {"$ref": "#/%ff"}, {"$ref": "#/~2"}, {"enum": 5}, 5, None, [], "x",
)  # fmt: skip
_NESTED = (
    "items",
    "not",
    "additionalProperties",
    "contains",
    "propertyNames",
    "if",
    "unevaluatedProperties",
    "unevaluatedItems",
)


def schema_text(draws: Draws) -> str:
    """Return a JSON Schema; with a flaw it is not valid, refers to elsewhere, or is too much work."""
    if draws.is_flawed(6):
        return draws.pick((*BROKEN_JSON, _too_much(12), json.dumps({"allOf": [{"$ref": "#"}] * 50})))
    return json.dumps(_schema(draws, 3))


def _schema(draws: Draws, depth: int) -> Any:
    if draws.is_flawed(4):
        return draws.pick(_FLAWED)
    match draws.number(0, 4 if depth else 0):
        case 0 | 1:
            return draws.pick(_SIMPLE)
        case 2:
            return {draws.pick(_NESTED): _schema(draws, depth - 1)}
        case 3:
            parts = [_schema(draws, depth - 1) for _ in range(draws.number(1, 3))]
            return {draws.pick(("allOf", "anyOf", "oneOf", "prefixItems")): parts}
        case _:
            inner = {draws.pick(_KEYS): _schema(draws, depth - 1) for _ in range(draws.number(0, 2))}
            return {draws.pick(("properties", "$defs", "patternProperties", "dependentSchemas")): inner}


def _too_much(levels: int) -> str:
    """Return a small schema that stands for 10 to the `levels` parts."""
    defs = {str(level): {"allOf": [{"$ref": f"#/$defs/{level + 1}"}] * 10} for level in range(levels)}
    return json.dumps({"$ref": "#/$defs/0", "$defs": {**defs, str(levels): {"type": "string"}}})

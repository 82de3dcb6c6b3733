"""What clients ask for: scripts of different shape and pace, and what has to come of each."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from types import MappingProxyType

from support.rpc import script
from turnwire.testing.v1.script_pb2 import Script
from turnwire.v1 import error_reason_pb2 as reasons
from turnwire.v1 import inference_pb2

SUCCEEDED, FAILED = inference_pb2.INFERENCE_STATE_SUCCEEDED, inference_pb2.INFERENCE_STATE_FAILED
COMPLETED, PENDING = inference_pb2.FINISH_CLASS_COMPLETED, inference_pb2.FINISH_CLASS_TOOL_CALLS_PENDING

# Two and three bytes of UTF-8 among them, so that offsets in characters would be noticed.
WORDS = ("one ", "two ", "drei ", "fünf ", "läuft ", "€uro ", "sieben ", "ocho ", "нет ", "ja ")


@dataclass(frozen=True, slots=True)
class Part:
    """A block that a play produces: the name of its kind, and what it says when it is whole."""

    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Play:
    """What one inference is to do, and how it ends if nothing comes in between.

    Without a script the scripted engine says the input back, which is `text`, or what it is to say. An `is_endless` one
    ends only by a cancel, by its timeout, or with its last attempt. `excused` are reasons for which it may fail while
    its provider is in trouble.
    """

    kind: str
    parts: tuple[Part, ...]
    script: Script | None = None
    state: inference_pb2.InferenceState.ValueType = SUCCEEDED
    finish_class: inference_pb2.FinishClass.ValueType = COMPLETED
    reason: int = 0
    timeout_seconds: float = 0.0
    is_endless: bool = False
    text: str = ""
    profile: str = "scripted"
    excused: frozenset[int] = frozenset()


def echo(text: str) -> Play:
    """The shortest one."""
    return Play("echo", (Part("llm_text", text),))


def flood(rng: Random) -> Play:
    """About half a megabyte in large pieces, as much as a listing of turns has for one of them."""
    text, times = _text(rng, 200), 360
    said = script({"text": {"text": text, "repeat": times}}, delta_length=60_000)
    return Play("flood", (Part("llm_text", text * times),), said)


def _text(rng: Random, count: int) -> str:
    return "".join(rng.choices(WORDS, k=count))


def _pace(rng: Random) -> str:
    return f"{rng.choice((0.002, 0.005, 0.01, 0.02))}s"


def _say(rng: Random) -> Play:
    text = _text(rng, rng.randint(1, 40))
    said = script({"text": {"text": text}}, pace=_pace(rng), delta_length=rng.choice((0, 3, 7)))
    return Play("say", (Part("llm_text", text),), said)


def _think(rng: Random) -> Play:
    thought, text = _text(rng, rng.randint(1, 20)), _text(rng, rng.randint(1, 20))
    said = script({"thinking": {"text": thought}}, {"text": {"text": text}}, pace=_pace(rng))
    return Play("think", (Part("reasoning", thought), Part("llm_text", text)), said)


def _burst(rng: Random) -> Play:
    text, times = _text(rng, 50), rng.randint(20, 200)
    said = script({"text": {"text": text, "repeat": times}}, delta_length=1000)
    return Play("burst", (Part("llm_text", text * times),), said)


def _long(rng: Random) -> Play:
    text = _text(rng, rng.randint(100, 200))
    said = script({"pause": "0.05s"}, {"text": {"text": text}}, pace="0.015s", delta_length=10)
    return Play("long", (Part("llm_text", text),), said)


def _tools(rng: Random) -> Play:
    text, args = _text(rng, rng.randint(1, 5)), f'{{"place": "{_text(rng, 8)}"}}'
    call = {"toolCall": {"name": "weather", "args": args}}
    said = script({"text": {"text": text}}, call, call, pace=_pace(rng))
    parts = (Part("llm_text", text), Part("tool_call", args), Part("tool_call", args))
    return Play("tools", parts, said, finish_class=PENDING)


def _fail(rng: Random) -> Play:
    text = _text(rng, rng.randint(1, 10))
    name = rng.choice(("ENGINE_UNAVAILABLE", "ENGINE_STREAM_BROKEN", "CONTENT_REFUSED"))
    said = script({"text": {"text": text}}, {"fail": {"reason": name}}, pace=_pace(rng))
    reason = reasons.ErrorReason.Value(f"ERROR_REASON_{name}")
    return Play("fail", (Part("llm_text", text),), said, FAILED, reason=reason)


def _crash(rng: Random) -> Play:
    text = _text(rng, rng.randint(1, 10))
    said = script({"thinking": {"text": text}}, {"crash": {}}, pace=_pace(rng))
    return Play("crash", (Part("reasoning", text),), said, FAILED, reason=reasons.ERROR_REASON_ENGINE_FAILED)


def _overdue(rng: Random) -> Play:
    text = _text(rng, 5)
    said = script({"text": {"text": text}}, {"hang": {}}, pace=_pace(rng))
    due = reasons.ERROR_REASON_DEADLINE_EXCEEDED
    seconds = rng.choice((0.1, 0.4, 1.5))
    return Play("overdue", (Part("llm_text", text),), said, FAILED, reason=due, timeout_seconds=seconds)


def _hang(rng: Random) -> Play:
    text = _text(rng, rng.randint(1, 10))
    said = script({"text": {"text": text}}, {"hang": {"ignoreCancel": rng.random() < 0.35}}, pace=_pace(rng))
    return Play("hang", (Part("llm_text", text),), said, is_endless=True)


_PLAYS: Mapping[Callable[[Random], Play], int] = MappingProxyType(
    {_say: 6, _think: 4, _burst: 1, _long: 5, _tools: 3, _fail: 2, _crash: 1, _overdue: 1}
)


def draw_play(rng: Random, *, may_hang: bool) -> Play:
    """Return a play, an endless one only if it may be."""
    plays = {**_PLAYS, _hang: 6} if may_hang else _PLAYS
    [play] = rng.choices(list(plays), list(plays.values()))
    return play(rng)

"""Store files of released schemas: what is in them, how they are kept, and how they are read.

    python tests/support/store_fixture.py tests/fixtures/store

writes `schemaN.sql` and `schemaN.json` for the newest schema N: a file that today's code wrote, as text, and what
today's code reads from it. It is run once, right before a release with a new schema; a file that exists is left alone,
since nobody can write it again. Every later turnwire has to open it and to read the same from it.
"""

import asyncio
import json
import sqlite3
import sys
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeAlias

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from turnwire_server.domain.errors import EngineUnavailableError, SessionNotFoundError
from turnwire_server.domain.event import (
    Cancelled,
    DebuggerPause,
    EngineCallFinished,
    EngineCallStarted,
    Event,
    Failed,
    LlmDelta,
    LlmFinal,
    LlmStart,
    LlmThinkingDelta,
    LlmThinkingFinal,
    LlmThinkingStart,
    Outcome,
    Payload,
    Succeeded,
    ToolCallCompleted,
    ToolDelta,
    ToolStart,
)
from turnwire_server.domain.inference import (
    ConflictPolicy,
    FinishClass,
    InferenceConfig,
    InferenceState,
    Overrides,
    Usage,
)
from turnwire_server.domain.session import NewSession, StepMode
from turnwire_server.domain.tool import Tool, ToolCall, ToolPlacement
from turnwire_server.domain.turn import Block, Image, SnapshotMark, SnapshotPhase, TurnView, User
from turnwire_server.events.snapshot import Fold
from turnwire_server.stores.base import SessionStore
from turnwire_server.stores.lease import Claim, Ending, Step
from turnwire_server.stores.sqlite import SqliteSessionStore
from turnwire_server.stores.sqlite_migration import read_scripts
from turnwire_server.stores.start import Admission, Idempotency, SessionState, StartCommand
from turnwire_server.wire import inference as wire_inference
from turnwire_server.wire import session as wire_session
from turnwire_server.wire import turn as wire_turn
from turnwire_server.wire.event import decode_frames, encode_event, event_to_proto

Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | float | bool | None"

EPOCH = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
DEAD_OWNER = "owner-that-was-killed"
FINGERPRINT = b"\x01" * 32

# The sessions, by principal, and the idempotency keys of the inferences that were started.
SESSIONS = (("local", "talk"), ("someone", "waiting"), ("someone", "paused"))
KEYS: tuple[tuple[str, str | NewSession, str], ...] = (
    *(("local", "talk", key) for key in ("succeeded", "failed", "cancelled", "running", "behind")),
    ("someone", "waiting", "alone"),
    ("someone", NewSession("gone"), "orphan"),
)

_THINKING = (
    LlmThinkingStart(),
    LlmThinkingDelta("What is ", 0),
    LlmThinkingDelta("ü?", 8),
    LlmThinkingFinal("What is ü?", 11, signature="signed", summary="asks", item="rs_1"),
)
_TEXT = (LlmStart(), LlmDelta("A letter", 0), LlmDelta("; see ", 8), LlmFinal("A letter; see ", 14))
_CALL = (
    ToolStart("look_up", ToolPlacement.CLIENT),
    ToolDelta('{"letter": ', 0),
    ToolDelta('"ü"}', 11),
    ToolCallCompleted(ToolCall("call_1", "look_up", '{"letter": "ü"}')),
)

_TALK = NewSession(
    session_id="talk",
    display_name="A talk",
    labels={"team": "ü", "kind": "test"},
    metadata={"turnwire.note@v1": '{"n": 1}'},
    profile="careful",
    ttl=timedelta(days=30),
    config=InferenceConfig(temperature=0.1),
)
_OVERRIDES = Overrides(
    InferenceConfig(stop_sequences=("end",)),
    (Tool("look_up", "Looks it up", '{"type": "object"}'),),
    engine_options='{"a": 1}',
    record_snapshots=True,
)


def restore(fixture: Path, path: Path) -> None:
    """Make the file of a fixture."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(fixture.read_text(encoding="utf-8"))


def admit(_command: StartCommand, _state: SessionState) -> Admission:
    """Accept every start."""
    return Admission("careful", "scripted", InferenceConfig(model="m1", temperature=0.5))


def start_command(principal: str, inference_id: str, target: str | NewSession, key: str, **fields: Any) -> StartCommand:
    """Return a start under an idempotency key."""
    idempotency = Idempotency("StartInference", key, FINGERPRINT)
    return StartCommand(
        principal, inference_id, target, conflict_policy=ConflictPolicy.ENQUEUE, idempotency=idempotency, **fields
    )


class _Writer:
    """Fills a store as servers would."""

    def __init__(self, store: SessionStore, now: Callable[[], datetime]) -> None:
        self._store = store
        self._now = now
        self._mint = map("own-{:06d}".format, count(1)).__next__

    async def fill(self) -> None:
        await self._store.create_session(
            "local", _TALK, self._mint(), Idempotency("CreateSession", "talk", FINGERPRINT)
        )
        await self._store.set_step_mode("local", "talk", StepMode(), self._mint())
        await self._store.register(DEAD_OWNER)
        claim = await self._run("succeeded", user("Say it"))
        await self._finish(claim, Succeeded(FinishClass.TOOL_CALLS_PENDING), *_THINKING, *_TEXT, *_CALL)
        error = EngineUnavailableError(engine="scripted", http_status=503).failure()
        claim = await self._run("failed", user("And again"), parent=0)
        await self._finish(claim, Failed(error), *_TEXT[:2])
        claim = await self._run("cancelled", user("Never mind"), parent=0)
        await self._store.request_cancel("local", claim.inference.inference_id, "enough")
        await self._finish(claim, Cancelled(), *_THINKING[:2])
        claim = await self._run("running", user("Go on"))
        await self._append(claim, 0, _THINKING)
        await self._append(claim, 4, _TEXT[:2])
        await self._start("local", "talk", "behind", user("Then this"), timeout=timedelta(days=36500))
        await self._pause()
        await self._store.create_session("someone", NewSession("waiting"), self._mint(), None)
        await self._start("someone", "waiting", "alone", user("Anybody?"))
        await self._start("someone", NewSession("gone"), "orphan", user("Soon gone"))
        await self._store.delete_session("someone", "gone", None, force=True)

    async def _start(self, principal: str, target: str | NewSession, key: str, *blocks: Block, **fields: Any) -> None:
        maps = {"metadata": {"turnwire.m@v1": '"m"'}, "data": {"turnwire.d@v1": f'{{"key": "{key}"}}'}}
        command = start_command(
            principal, self._mint(), target, key, input=blocks, overrides=_OVERRIDES, **maps, **fields
        )
        await self._store.start(command, admit)

    async def _run(self, key: str, *blocks: Block, **fields: Any) -> Claim:
        await self._start("local", "talk", key, *blocks, **fields)
        [claim] = await self._store.claim(DEAD_OWNER, [self._mint()])
        return claim

    async def _pause(self) -> None:
        await self._store.create_session("someone", NewSession("paused"), self._mint(), None)
        await self._start("someone", "paused", "paused", user("Step by step"))
        [claim] = await self._store.claim(DEAD_OWNER, [self._mint()])
        [event] = self._events(claim, [DebuggerPause("pause-1", "after_inference")])
        phases = (SnapshotPhase.PRE_INFERENCE, SnapshotPhase.POST_INFERENCE)
        step = Step(
            1,
            (user("So far"),),
            events=(encode_event(event),),
            checkpoint=b"checkpoint",
            then=InferenceState.PAUSED,
            wake_time=EPOCH,
            data={"turnwire.d@v1": '"replaced"'},
            marks=tuple(SnapshotMark(phase, 1, count, self._now()) for count, phase in enumerate(phases, 1)),
        )
        await self._store.commit_step(claim.lease, 0, step)

    async def _append(self, claim: Claim, position: int, payloads: Sequence[Payload]) -> None:
        events = [encode_event(event) for event in self._events(claim, payloads)]
        await self._store.append(claim.lease, position, events)

    async def _finish(self, claim: Claim, outcome: Outcome, *payloads: Payload) -> None:
        call = EngineCallStarted(1, claim.engine, "m1")
        finish_class = outcome.finish_class if isinstance(outcome, Succeeded) else FinishClass.ERROR
        end = EngineCallFinished(Usage(11, 7, 3, 2), finish_class, "stop", "m1-2026")
        await self._append(claim, 0, [call, *payloads])
        fold = Fold()
        for event in self._events(claim, [call, *payloads, end]):
            fold.apply(event)
        [last] = self._events(claim, [end])
        ending = Ending(outcome, fold.usage, fold.model, fold.blocks(), (encode_event(last),))
        await self._store.finish(claim.lease, 1 + len(payloads), ending)

    def _events(self, claim: Claim, payloads: Sequence[Payload]) -> list[Event]:
        inference = claim.inference
        return [
            Event(inference.session_id, inference.inference_id, self._now(), payload, _entity(payload))
            for payload in payloads
        ]


def _entity(payload: Payload) -> str:
    """Return the id of the block, or of the call, that an event is about."""
    for entity, payloads in (("thinking", _THINKING), ("text", _TEXT), ("call_1", _CALL)):
        if payload in payloads:
            return entity
    return "engine-call"


def user(text: str) -> Block:
    """Return a block of a user, with an image."""
    return Block("", User(text, (Image(content=b"\x00\xff", media_type="image/png"),)), metadata={"turnwire.b@v1": "1"})


async def read(store: SessionStore) -> dict[str, Any]:
    """Return everything that can be read of the sessions, and what starts that are repeated return, as JSON."""
    sessions = {f"{principal}/{name}": await _read(store, principal, name) for principal, name in SESSIONS}
    due = [due.inference_id for due in await store.find_due(EPOCH, 100)]
    repeated = {f"key {key}": await _repeat(store, principal, target, key) for principal, target, key in KEYS}
    return {**sessions, **repeated, "due": due}


async def _repeat(store: SessionStore, principal: str, target: str | NewSession, key: str) -> Any:
    try:
        started = await store.start(start_command(principal, "repeated", target, key), admit)
    except SessionNotFoundError:
        return None
    return {"inference_id": started.inference.inference_id, "created": started.created}


async def _read(store: SessionStore, principal: str, session_id: str) -> dict[str, Any] | None:
    try:
        session = await store.get_session(principal, session_id)
    except SessionNotFoundError:  # an older fixture has less
        return None
    inferences = await store.list_inferences(principal, session_id, (), 100, None)
    paused = await store.list_waiting(principal, session_id, InferenceState.PAUSED, 100, None)
    turns = await store.list_turns(principal, session_id, TurnView.FULL, 100, None, newest_first=False)
    page = await store.read_log(principal, session_id, 0, 1 << 30)
    events = [event for chunk in page.chunks for event in decode_frames(chunk.data)]
    return {
        "session": _json(wire_session.to_proto(session)),
        "inferences": [_json(wire_inference.to_proto(inference)) for inference in inferences.items],
        "turns": [_json(wire_turn.to_proto(turn)) for turn in turns.items],
        "log": page.log,
        "head_sequence": page.head_sequence,
        "events": [_json(event_to_proto(event)) for event in events],
        "paused": [waiting.checkpoint.decode() for waiting in paused.items],
        "snapshots": [
            [snapshot.mark.phase.name, snapshot.mark.iteration, _json(wire_turn.to_proto(snapshot.turn))]
            for inference in inferences.items
            for snapshot in (await store.list_turn_snapshots(principal, inference.inference_id, None, 100, None)).items
        ],
    }


def _json(message: Message) -> Any:
    return MessageToDict(message, preserving_proto_field_name=True)


def clock() -> Callable[[], datetime]:
    """Return a clock that goes on by a second each time it is read."""
    seconds = count()
    return lambda: EPOCH + timedelta(seconds=next(seconds))


@asynccontextmanager
async def opened(path: Path, now: Callable[[], datetime], ids_from: int = 1) -> AsyncGenerator[SessionStore]:
    """Open a store that tells the time, and counts ids."""
    ids = map("id-{:06d}".format, count(ids_from))
    store = await SqliteSessionStore.open(path, lambda _: None, now, ids.__next__)
    try:
        yield store
    finally:
        await store.close()


async def write(folder: Path) -> None:
    """Write the fixture of the newest schema, if there is none."""
    fixture = folder / f"schema{len(read_scripts())}.sql"
    if fixture.exists():
        sys.exit(f"{fixture} exists")
    with TemporaryDirectory() as temporary:
        path = Path(temporary) / "turnwire.db"
        now = clock()
        async with opened(path, now) as store:
            await _Writer(store, now).fill()
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("UPDATE meta SET value = 'fixture' WHERE name = 'incarnation'")  # it is random
        async with opened(path, now) as store:
            found = await read(store)
        fixture.write_text(_dump(path), encoding="utf-8")
    text = json.dumps(found, ensure_ascii=False, indent=1, sort_keys=True)
    fixture.with_suffix(".json").write_text(f"{text}\n", encoding="utf-8")


def _dump(path: Path) -> str:
    with closing(sqlite3.connect(path)) as connection:
        pragmas = [
            f"PRAGMA {name} = {connection.execute(f'PRAGMA {name}').fetchone()[0]};"
            for name in ("application_id", "user_version")
        ]
        return "\n".join((*pragmas, *connection.iterdump(), ""))


def differences(found: Json, expected: Json, where: str = "") -> list[str]:
    """Return where something is not what was expected of it. What was added since does not count."""
    pairs: list[tuple[str, Json, Json]]
    if isinstance(expected, dict) and isinstance(found, dict):
        pairs = [(f"{where}.{name}", found.get(name), value) for name, value in expected.items()]
    elif isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        pairs = [(f"{where}[{n}]", found[n], value) for n, value in enumerate(expected)]
    else:
        return [] if found == expected else [f"{where}: {found!r}, expected {expected!r}"]
    return [line for place, one, other in pairs for line in differences(one, other, place)]


if __name__ == "__main__":
    asyncio.run(write(Path(sys.argv[1])))

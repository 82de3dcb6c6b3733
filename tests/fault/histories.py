"""Pieces of a history with nothing wrong, to be broken by the tests of what checks histories."""

import ast
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from fault.ledger import Asked, SessionLedger
from fault.logbook import Logbook
from fault.plays import Play, echo
from support.rpc import start_request
from turnwire.v1 import error_reason_pb2 as reasons
from turnwire.v1 import inference_pb2, turn_pb2
from turnwire.v1 import inference_service_pb2 as pb
from turnwire.v1.event_pb2 import Event
from turnwire.v1.inference_pb2 import Inference
from turnwire.v1.session_pb2 import Session
from turnwire.v1.turn_pb2 import Turn
from turnwire_conformance.promises import Watch

FIRST, SECOND = "inference-1", "inference-2"
RUNNING, SUCCEEDED, FAILED, CANCELLED = (
    inference_pb2.INFERENCE_STATE_RUNNING,
    inference_pb2.INFERENCE_STATE_SUCCEEDED,
    inference_pb2.INFERENCE_STATE_FAILED,
    inference_pb2.INFERENCE_STATE_CANCELLED,
)
Log = list[Event]

# How the message of the check begins that refuses a broken history, and what runs the check.
History = tuple[str, Callable[[], object]]


def session(**fields: Any) -> Session:
    """A session that was changed once."""
    given: dict[str, Any] = {"session_id": "session", "log": "log", "display_name": "name", "revision": 2}
    return Session(**(given | fields))


def inference(**fields: Any) -> Inference:
    """The inference that story() tells of."""
    named: dict[str, Any] = {"inference_id": FIRST, "session_id": "session", "attempts_max": 1}
    placed: dict[str, Any] = {"first_sequence": 1, "last_sequence": 7, "turn_index": 0}
    return Inference(**(named | placed | fields))


def succeeded(**fields: Any) -> Inference:
    """The same, after its end."""
    given: dict[str, Any] = {"state": SUCCEEDED, "finish_class": inference_pb2.FINISH_CLASS_COMPLETED}
    return inference(**(given | fields))


def lost(**fields: Any) -> Inference:
    """The same, after its last attempt was lost."""
    given = inference(state=FAILED, finish_class=inference_pb2.FINISH_CLASS_ERROR, **fields)
    given.error.reason = reasons.ERROR_REASON_ATTEMPT_LOST
    return given


def story(inference_id: str = FIRST, after: int = 0) -> Log:
    """The seven events of an inference that says hello."""
    payloads: list[tuple[str, dict[str, Any]]] = [
        ("", {"inference_queued": {"queue_position": 1}}),
        ("", {"inference_started": {}}),
        ("b1", {"llm_start": {}}),
        ("b1", {"llm_delta": {"delta": "hello"}}),
        ("b1", {"llm_final": {"text": "hello", "text_bytes": 5}}),
        ("", {"turn_closed": {}}),
        ("", {"inference_finished": {"succeeded": {}, "event_count": 7}}),
    ]
    return [
        Event(sequence=sequence, session_id="session", inference_id=inference_id, entity=entity, **payload)
        for sequence, (entity, payload) in enumerate(payloads, after + 1)
    ]


def turn(*texts: tuple[str, str], state: int = turn_pb2.TURN_STATE_CLOSED) -> Turn:
    """A turn with an input and an output; the view DELTA of one that inherits two blocks."""
    made = Turn(index=3, state=turn_pb2.TurnState.ValueType(state), inherited_block_count=2, given_block_count=3)
    made.blocks.add(id="b0").user.text = "hi"
    for number, (kind, text) in enumerate(texts, 1):
        block = made.blocks.add(id=f"b{number}", status=turn_pb2.BLOCK_STATUS_COMPLETE)
        getattr(block, kind).text = text
    return made


def asked(seen: Inference | None = None, play: Play | None = None, **fields: Any) -> Asked:
    """A start under the key `key`, in the first life."""
    request = start_request("session", "hello", idempotency_key="key")
    return Asked(request, play or echo("hello"), first_life=1, seen=seen or Inference(), **fields)


def ledger(**fields: Any) -> SessionLedger:
    """A session that was acknowledged."""
    return SessionLedger("session", session=session(), **fields)


def reply(*, created: bool, inference_id: str = FIRST) -> pb.StartInferenceResponse:
    """The reply to a start."""
    return pb.StartInferenceResponse(inference=inference(inference_id=inference_id), created=created)


def watch(end: int = 0, *events: Event, inference_id: str = "") -> Watch:
    """A watcher at the sequence 7."""
    return Watch("session", inference_id, events=list(events), position=7, end=end)


def book(log: Log) -> Logbook:
    """What is known of a log that was read."""
    made = Logbook()
    made.take(log)
    return made


def silent_assertions(module: ModuleType, histories: Iterable[History]) -> list[int]:
    """Return the lines of the assertions of a module that none of the histories makes fail."""
    path = module.__file__ or ""
    failed: set[int] = set()
    for _, check in histories:
        with pytest.raises(AssertionError) as refused:
            check()
        last = traceback.extract_tb(refused.value.__traceback__)[-1]
        if last.filename == path:
            failed.add(last.lineno or 0)
    assertions = [node for node in ast.walk(ast.parse(Path(path).read_text("utf-8"))) if isinstance(node, ast.Assert)]
    return [node.lineno for node in assertions if not failed & set(range(node.lineno, (node.end_lineno or 0) + 1))]

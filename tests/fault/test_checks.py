"""The kill test can fail: each of its checks has a history here that only it refuses."""

from typing import Any

import pytest

from fault import checks
from fault.histories import (
    CANCELLED,
    FAILED,
    FIRST,
    RUNNING,
    SECOND,
    SUCCEEDED,
    History,
    asked,
    inference,
    ledger,
    lost,
    reply,
    session,
    silent_assertions,
    story,
    succeeded,
    turn,
    watch,
)
from fault.ledger import Asked
from fault.logbook import digest
from fault.plays import Part, Play
from turnwire.v1 import inference_pb2, turn_pb2
from turnwire.v1 import inference_service_pb2 as pb
from turnwire.v1.event_pb2 import Event, InferenceFinished, InferenceStarted
from turnwire.v1.inference_pb2 import Inference
from turnwire.v1.session_service_pb2 import CreateSessionResponse

PARTS = (Part("reasoning", "hmm"), Part("llm_text", "hello"))


def test_a_whole_history_passes() -> None:
    checks.check_session_kept(session(), session(display_name="new", revision=3, head_sequence=9))
    checks.check_update_kept(session(), {"name", "next"})
    checks.check_inference_kept(inference(state=RUNNING), succeeded())
    checks.check_inference_kept(succeeded(), succeeded())
    checks.check_reply(asked(sent_count=1), reply(created=True))
    checks.check_reply(asked(inference(), sent_count=2, is_created=True), reply(created=False))
    checks.check_end_told(succeeded(), story())
    checks.check_attempts(inference(), story(), 0)
    checks.check_turn_told(turn(("llm_text", "hello")), story())
    checks.check_output(PARTS, SUCCEEDED, turn(("reasoning", "hmm"), ("llm_text", "hello")))
    checks.check_output(PARTS, FAILED, turn(("reasoning", "h")))
    checks.check_output(PARTS, CANCELLED, turn())


@pytest.mark.parametrize(
    ("ended", "ends"),
    [
        (asked(succeeded()), 0),
        (asked(lost()), 1),
        (asked(lost(attempts_max=3)), 3),
        (asked(inference(state=CANCELLED, finish_class=inference_pb2.FINISH_CLASS_INTERRUPTED), cancel_count=1), 0),
    ],
    ids=["succeeded", "lost", "lost three times", "cancelled"],
)
def test_an_end_that_something_explains_passes(ended: Asked, ends: int) -> None:
    checks.check_outcome(ended, ends, is_cancel_kept=False)


# --- broken histories ---------------------------------------------------------------------------------


def _created_again() -> None:
    known = ledger()
    checks.check_creation(known, CreateSessionResponse(created=True))
    known.created.set()
    checks.check_creation(known, CreateSessionResponse(created=True))


def _end_told(now: Inference, **changed: Any) -> None:
    log = story()
    log[-1].inference_finished.MergeFrom(InferenceFinished(**changed))
    checks.check_end_told(now, log)


def _outcome(seen: Inference, ends: int = 0, *, is_cancel_kept: bool = False, play: Play | None = None) -> None:
    checks.check_outcome(asked(seen, play), ends, is_cancel_kept=is_cancel_kept)


def _attempts(attempts_max: int, *attempts: int) -> None:
    started = [Event(attempt=attempt, inference_started=InferenceStarted()) for attempt in attempts]
    checks.check_attempts(inference(attempts_max=attempts_max), started, 0)


def _cancelled(cancel_count: int, finish_class: inference_pb2.FinishClass.ValueType) -> None:
    seen = inference(state=CANCELLED, finish_class=finish_class)
    checks.check_outcome(asked(seen, cancel_count=cancel_count), 0, is_cancel_kept=False)


DELETED = pb.SUBSCRIPTION_END_REASON_SESSION_DELETED
FINISHED = pb.SUBSCRIPTION_END_REASON_INFERENCE_FINISHED
HANG = Play("hang", PARTS, is_endless=True)

HISTORIES: dict[str, History] = {
    # sessions
    "other log": ("Durable: log of", lambda: checks.check_session_kept(session(), session(log="new"))),
    "lost turn": ("Durable: turn_count of", lambda: checks.check_session_kept(session(turn_count=2), session())),
    "lost update": ("Durable: revision of", lambda: checks.check_session_kept(session(), session(revision=1))),
    "other name": ("Durable: display_name of", lambda: checks.check_session_kept(session(), session(display_name=""))),
    "older name": ("Durable: the session is named 'name'", lambda: checks.check_update_kept(session(), {"newer"})),
    "vanished session": (
        "Durable: sessions vanished: {'session'}",
        lambda: checks.check_all_listed(["session"], {"other"}, "sessions"),
    ),
    "session that is back": ("Durable: deleted sessions", lambda: checks.check_none_listed(["s"], {"s", "t"})),
    "session that is not there": (
        "Durable: SESSION_NOT_FOUND, and nobody",
        lambda: checks.check_absence(ledger(), "SESSION_NOT_FOUND"),
    ),
    "other log of a deleted session": (
        "Durable: LOG_REPLACED of the deleted",
        lambda: checks.check_absence(ledger(delete_count=1), "LOG_REPLACED"),
    ),
    "session that cannot be deleted": (
        "Available: session session cannot be deleted: INTERNAL",
        lambda: checks.check_deletion(ledger(delete_count=2), "INTERNAL"),
    ),
    "session that is gone already": (
        "Durable: session session was gone before",
        lambda: checks.check_deletion(ledger(delete_count=1), "SESSION_NOT_FOUND"),
    ),
    "key of a deleted session": ("Idempotent: a key of the deleted", lambda: checks.check_gone("s", "created=True")),
    "stream of a deleted session": (
        "Durable: session was deleted, and 1 of its streams",
        lambda: checks.check_streams_ended(ledger(), 1),
    ),
    # starts
    "session created again": ("Idempotent: the session session was created again", _created_again),
    "other inference": (
        "Idempotent: key was inference-1, and is inference-2",
        lambda: checks.check_reply(asked(inference(), sent_count=2), reply(created=False, inference_id=SECOND)),
    ),
    "doubled start": (
        "Idempotent: key created inference-1 again",
        lambda: checks.check_reply(asked(inference(), sent_count=2, is_created=True), reply(created=True)),
    ),
    "start of nothing": (
        "Idempotent: key was new, and created nothing",
        lambda: checks.check_reply(asked(sent_count=1), reply(created=False)),
    ),
    "one inference of two keys": (
        "Idempotent: key is inference-1, which another",
        lambda: checks.check_own(asked(), FIRST, {FIRST}),
    ),
    "refused start": (
        "Available: key is refused: INTERNAL",
        lambda: checks.check_refusal(asked(), Inference(), "INTERNAL"),
    ),
    "start that is refused later": (
        "Idempotent: key was inference-1, and is refused",
        lambda: checks.check_refusal(asked(), inference(), "SESSION_BUSY"),
    ),
    "doubled start in the log": (
        "Idempotent: {'inference-2'} were started by 0",
        lambda: checks.check_starts([FIRST, SECOND], [FIRST], 0),
    ),
    # inferences
    "ended and changed": (
        "Durable: the ended inference was",
        lambda: checks.check_inference_kept(succeeded(), succeeded(model="other")),
    ),
    "fewer attempts": (
        "Durable: attempts_max of",
        lambda: checks.check_inference_kept(inference(attempts_max=3), inference()),
    ),
    "lost cancel": (
        "Durable: cancel_requested_time of",
        lambda: checks.check_inference_kept(inference(cancel_requested_time={"seconds": 1}), inference()),
    ),
    "lost first turn": (
        "Durable: turn_index of",
        lambda: checks.check_inference_kept(inference(), inference(turn_index=None)),
    ),
    "lost events": (
        "Durable: last_sequence of",
        lambda: checks.check_inference_kept(inference(), inference(last_sequence=6)),
    ),
    "two active inferences": (
        "SingleActive: ['inference-1', 'inference-2']",
        lambda: checks.check_single_active(
            session(), [inference(state=RUNNING), inference(inference_id=SECOND, state=RUNNING), succeeded()]
        ),
    ),
    "busy with what has ended": (
        "Terminal: the session is busy with inference-1",
        lambda: checks.check_busy(FIRST, {SECOND}, 0),
    ),
    "accepted beside another one": (
        "SingleActive: key was accepted while key had not",
        lambda: checks.check_made_room(asked(), asked(inference(state=RUNNING))),
    ),
    "nothing to cancel": (
        "Terminal: session session has nothing to cancel, and ['inference-1']",
        lambda: checks.check_none_active(ledger(unfinished={FIRST: asked(inference())}), "NO_ACTIVE_INFERENCE"),
    ),
    "session that cannot be cancelled": (
        "Available: session session cannot be cancelled: X",
        lambda: checks.check_none_active(ledger(), "X"),
    ),
    "cancel that is not recorded": (
        "Durable: a cancel was acknowledged and not",
        lambda: checks.check_cancel_told(inference(state=RUNNING)),
    ),
    "cancel of a stranger": (
        "SingleActive: a cancel of session met inference-1",
        lambda: checks.check_met(ledger(), FIRST),
    ),
    "stuck inference": (
        "Terminal: echo is stuck after 20.5 s",
        lambda: checks.check_in_time(asked(inference(state=RUNNING)), 20.5, 20),
    ),
    "inference without an end": (
        "Terminal: {'inference-1'} of session session never",
        lambda: checks.check_nothing_left("session", {FIRST}),
    ),
    # ends
    "cancelled by nobody": (
        "Terminal: echo inference-1 of session session is CANCELLED, and nobody",
        lambda: _cancelled(0, inference_pb2.FINISH_CLASS_INTERRUPTED),
    ),
    "cancelled and completed": (
        "Terminal: echo inference-1 of session session is cancelled:",
        lambda: _cancelled(1, inference_pb2.FINISH_CLASS_COMPLETED),
    ),
    "lost without a kill": (
        "Terminal: echo inference-1 of session session lost its attempts, with 0",
        lambda: _outcome(lost()),
    ),
    "lost too early": (
        "Terminal: echo inference-1 of session session lost its attempts, with 2",
        lambda: _outcome(lost(attempts_max=3), 2),
    ),
    "lost with its cancel": (
        "Durable: echo inference-1 of session session lost its attempt, and the cancel",
        lambda: _outcome(lost(), 1, is_cancel_kept=True),
    ),
    "ended in another way": (
        "Terminal: echo inference-1 of session session ended with",
        lambda: _outcome(succeeded(finish_class=inference_pb2.FINISH_CLASS_MAX_TOKENS)),
    ),
    "ended by itself": (
        "Terminal: hang inference-1 of session session ended by itself",
        lambda: _outcome(succeeded(), play=HANG),
    ),
    "ended in the log alone": ("Terminal: inference-1 ended at 7 of the log", lambda: _end_told(inference())),
    "ended otherwise in the log": ("Terminal: session_id", lambda: _end_told(succeeded(), cancelled={})),
    "another error in the log": ("Terminal: session_id", lambda: _end_told(lost(), failed={"error": {}})),
    "another usage in the log": ("Terminal: session_id", lambda: _end_told(succeeded(), usage={"output_tokens": 1})),
    "another end of the log": ("Gapless: session_id", lambda: _end_told(succeeded(last_sequence=6))),
    "attempt that was left out": ("Terminal: the attempts of inference-1 were [0, 2]", lambda: _attempts(2, 0, 2)),
    "attempt that was not counted": (
        "Terminal: the attempts of inference-1 were [0, 1, 1], with 0 stops",
        lambda: _attempts(3, 0, 1, 1),
    ),
    "attempt too many": ("Terminal: inference-1 had attempt 1 of 1", lambda: _attempts(1, 0, 1)),
    # turns
    "open turn of an ended inference": (
        "Terminal: turn 3 is not closed",
        lambda: checks.check_turn_told(turn(("llm_text", "hello"), state=turn_pb2.TURN_STATE_OPEN), story()),
    ),
    "turn that lost text": (
        "Durable: turn 3 has {'b1': ('hell', True)}",
        lambda: checks.check_turn_told(turn(("llm_text", "hell")), story()),
    ),
    "half of an output": (
        "Unique: turn 3 has",
        lambda: checks.check_output(PARTS, SUCCEEDED, turn(("reasoning", "hmm"))),
    ),
    "output with a hole": (
        "Unique: turn 3 has",
        lambda: checks.check_output(PARTS, FAILED, turn(("reasoning", "h"), ("llm_text", "hello"))),
    ),
    "output twice": (
        "Unique: turn 3 has",
        lambda: checks.check_output(
            PARTS, FAILED, turn(("reasoning", "hmm"), ("llm_text", "hello"), ("llm_text", "hello"))
        ),
    ),
    "changed turn": (
        "Durable: turn 3 was final",
        lambda: checks.check_digest("turn 3", digest(turn(("llm_text", "a"))), digest(turn(("llm_text", "b")))),
    ),
    "fewer events": ("Durable: 6 events of session, of 7", lambda: checks.check_count("session", 6, 7)),
    "turn that is open again": ("Durable: turn 3 was closed, and", lambda: checks.check_not_reopened(3, {3})),
    # watchers and servers
    "session that stays unusable": ("Terminal: sessions that are not", lambda: checks.check_settled([ledger()])),
    "watcher that is behind": (
        "Resumable: watchers of session are at [('all', 7)]",
        lambda: checks.check_caught_up(ledger(watches=[watch(), watch(inference_id=FIRST)]), 8),
    ),
    "watcher that misses an end": (
        "Resumable: watchers of session are at [('inference-1', 7)]",
        lambda: checks.check_caught_up(ledger(watches=[watch(), watch(inference_id=FIRST)], ended={FIRST: b""}), 7),
    ),
    "stream that is cut": (
        "Resumable: a running server ended a stream",
        lambda: checks.check_stream_end(ledger(), watch(), is_ending=False),
    ),
    "stream of a session that nobody deleted": (
        "Durable: a stream of session at 7 ended with its session",
        lambda: checks.check_stream_end(ledger(), watch(DELETED), is_ending=False),
    ),
    "stream without a terminal event": (
        "Terminal: a stream of session at 7 ended with",
        lambda: checks.check_stream_end(ledger(), watch(FINISHED, story()[5], inference_id=FIRST), is_ending=False),
    ),
    "fault of the server": ("Available: a running server answered", lambda: checks.check_answer("UNKNOWN", "INTERNAL")),
    "server that crashed": ("Available: a server ended with 1", lambda: checks.check_exit(1, {0, -9})),
}


@pytest.mark.parametrize("name", HISTORIES)
def test_what_is_broken_is_refused(name: str) -> None:
    message, check = HISTORIES[name]
    with pytest.raises(AssertionError) as refused:
        check()
    assert str(refused.value).startswith(message)


def test_every_assertion_has_a_history() -> None:
    """An assertion that no history makes fail would be one that nobody knows to work."""
    assert silent_assertions(checks, HISTORIES.values()) == []

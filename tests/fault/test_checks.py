"""The fault suite can fail: each of its checks has a history here that only it refuses."""

import pytest

from fault import checks
from fault.histories import (
    FIRST,
    RUNNING,
    SECOND,
    History,
    asked,
    inference,
    ledger,
    reply,
    session,
    silent_assertions,
    story,
    succeeded,
    turn,
    watch,
)
from fault.logbook import digest
from fault.plays import Part
from turnwire.v1 import inference_service_pb2 as pb
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


# --- broken histories ---------------------------------------------------------------------------------


def _created_again() -> None:
    known = ledger()
    checks.check_creation(known, CreateSessionResponse(created=True))
    known.created.set()
    checks.check_creation(known, CreateSessionResponse(created=True))


DELETED = pb.SUBSCRIPTION_END_REASON_SESSION_DELETED
FINISHED = pb.SUBSCRIPTION_END_REASON_INFERENCE_FINISHED

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
        "HistoryImmutable: the ended inference was",
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
        "NothingStuck: echo is stuck after 20.5 s",
        lambda: checks.check_in_time(asked(inference(state=RUNNING)), 20.5, 20),
    ),
    "cancelled inference that goes on": (
        "CancelEnds: echo is told to have ended 2.5 s after its cancel, of 2.0 s",
        lambda: checks.check_cancel_ends(asked(succeeded()), 2.5, 2.0),
    ),
    "cancelled inference that ended late": (
        "CancelEnds: echo ended 2.10 s after its cancel, 0.05 s of it excused",
        lambda: checks.check_cancel_time(
            asked(succeeded(cancel_requested_time={"seconds": 7}, end_time={"seconds": 9, "nanos": 100_000_000})), 0.05
        ),
    ),
    "inference that waits for a reader": (
        "Bounded: echo is not over after 9.0 s",
        lambda: checks.check_not_slowed(asked(inference(state=RUNNING)), 9.0, 8.0),
    ),
    "watcher that gets nothing beside slow ones": (
        "Bounded: watchers of session are at [7] of 8",
        lambda: checks.check_not_starved(ledger(watches=[watch()]), 8),
    ),
    "slow reader that gets nothing": (
        "Resumable: a slow reader of session is at 7 of 8 after 9.0 s",
        lambda: checks.check_read_on(watch(), 8, 9.0, 8.0),
    ),
    "wait that gives up": (
        "WaitAgrees: 1.5 s too early",
        lambda: checks.check_wait(inference(state=RUNNING), 1.5, has_ended_before=False),
    ),
    "wait that is behind": (
        "WaitAgrees: its end was seen before",
        lambda: checks.check_wait(inference(state=RUNNING), 0, has_ended_before=True),
    ),
    "wait that tells something else": (
        "WaitAgrees: a wait returned",
        lambda: checks.check_wait_agrees(succeeded(), succeeded(last_sequence=8)),
    ),
    "inference without an end": (
        "NothingStuck: {'inference-1'} of session session never",
        lambda: checks.check_nothing_left("session", {FIRST}),
    ),
    # what has ended
    "changed turn": (
        "HistoryImmutable: turn 3 was final",
        lambda: checks.check_digest("turn 3", digest(turn(("llm_text", "a"))), digest(turn(("llm_text", "b")))),
    ),
    "fewer events": ("Durable: 6 events of session, of 7", lambda: checks.check_count("session", 6, 7)),
    "turn that is open again": ("HistoryImmutable: turn 3 was closed, and", lambda: checks.check_not_reopened(3, {3})),
    # watchers and servers
    "session that stays unusable": ("NothingStuck: sessions that are not", lambda: checks.check_settled([ledger()])),
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
    "server that does not come back": ("Available: 30.5 s after", lambda: checks.check_back(30.5, 30)),
    "server that is too large": ("Bounded: a server had 900 MiB", lambda: checks.check_memory(900 * 1024, 260 * 1024)),
    "run that did nothing": (
        "the run did too little of {'floods': 2}",
        lambda: checks.check_exercised({"floods": 2, "kills": 3}, {"floods": 3, "kills": 3}),
    ),
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

"""What has to hold after a restart, check by check: each compares what was seen before with what the server says now.

Every assertion has its broken history in tests/fault/test_checks.py, which fails when one is added without.
"""

from collections.abc import Collection, Iterable, Sequence
from itertools import pairwise

from fault.ledger import Asked, SessionLedger
from fault.plays import Part
from support.promises import Watch, holding
from turnwire.v1 import error_reason_pb2 as reasons
from turnwire.v1 import inference_pb2, turn_pb2
from turnwire.v1 import inference_service_pb2 as pb
from turnwire.v1.event_pb2 import Event
from turnwire.v1.inference_pb2 import Inference
from turnwire.v1.inference_service_pb2 import StartInferenceResponse
from turnwire.v1.session_pb2 import Session
from turnwire.v1.session_service_pb2 import CreateSessionResponse
from turnwire.v1.turn_pb2 import Turn

SUCCEEDED, FAILED, CANCELLED = (
    inference_pb2.INFERENCE_STATE_SUCCEEDED,
    inference_pb2.INFERENCE_STATE_FAILED,
    inference_pb2.INFERENCE_STATE_CANCELLED,
)
TERMINAL = (SUCCEEDED, FAILED, CANCELLED)
GONE = ("SESSION_NOT_FOUND", "INFERENCE_NOT_FOUND")
OUTCOMES = {SUCCEEDED: "succeeded", FAILED: "failed", CANCELLED: "cancelled"}

# Given with the start, or once and for all when it comes to that.
_FIXED = ("session_id", "inference_id", "create_time", "deadline_time", "profile", "config", "attempts_max")
_SET_ONCE = {"first_sequence", "start_time", "turn_index", "cancel_requested_time", "cancel_reason"}
_DESCRIPTION = ("display_name", "labels", "metadata", "profile", "update_time")


def check_session_kept(before: Session, now: Session) -> None:
    """Durable: what was said about a session still holds."""
    for name in ("session_id", "log", "create_time"):
        assert getattr(now, name) == getattr(before, name), _changed(name, before, now)
    for name in ("revision", "turn_count", "head_sequence"):
        assert getattr(now, name) >= getattr(before, name), _changed(name, before, now)
    if now.revision == before.revision:
        for name in _DESCRIPTION:
            assert getattr(now, name) == getattr(before, name), _changed(name, before, now)


def check_update_kept(now: Session, names: Collection[str]) -> None:
    """Durable: a session has the last name that was acknowledged, or one that was sent after it."""
    assert now.display_name in names, f"Durable: the session is named {now.display_name!r}, not one of {names}"


def check_inference_kept(before: Inference, now: Inference) -> None:
    """Durable: what was said about an inference still holds; once it has ended, every byte of it."""
    if before.state in TERMINAL:
        assert now == before, f"Durable: the ended inference was {before}, is {now}"
    for name in _FIXED:
        assert getattr(now, name) == getattr(before, name), _changed(name, before, now)
    was, told = ({field.name: value for field, value in each.ListFields()} for each in (before, now))
    for name in was.keys() & _SET_ONCE:
        assert told.get(name) == was[name], _changed(name, before, now)
    for name in ("attempt", "last_sequence"):
        assert getattr(now, name) >= getattr(before, name), _changed(name, before, now)


def check_all_listed(known: Iterable[str], listed: Collection[str], what: str) -> None:
    """Durable: nothing that was acknowledged has vanished."""
    missing = set(known) - set(listed)
    assert not missing, f"Durable: {what} vanished: {missing}"


def check_none_listed(gone: Iterable[str], listed: Collection[str]) -> None:
    """Durable: what was deleted stays so."""
    back = set(gone) & set(listed)
    assert not back, f"Durable: deleted sessions are back: {back}"


def check_absence(ledger: SessionLedger, reason: str) -> None:
    """Durable: what was acknowledged is there, unless a request to delete it was sent."""
    assert ledger.is_deleting, f"Durable: {reason}, and nobody deleted session {ledger.session_id}"
    assert reason in GONE, f"Durable: {reason} of the deleted session {ledger.session_id}"


def check_deletion(ledger: SessionLedger, reason: str) -> None:
    """Durable: a session is there to be deleted, unless it was never acknowledged, or an earlier request did it."""
    assert reason == "SESSION_NOT_FOUND", f"Available: session {ledger.session_id} cannot be deleted: {reason}"
    may_be_gone = ledger.delete_count > 1 or not ledger.session.session_id
    assert may_be_gone, f"Durable: session {ledger.session_id} was gone before it was deleted"


def check_none_active(ledger: SessionLedger, reason: str) -> None:
    """Terminal: a session with nothing to cancel has nothing that is unfinished."""
    assert reason == "NO_ACTIVE_INFERENCE", f"Available: session {ledger.session_id} cannot be cancelled: {reason}"
    left = list(ledger.unfinished)
    assert not left, f"Terminal: session {ledger.session_id} has nothing to cancel, and {left} did not end"


def check_reply(asked: Asked, reply: StartInferenceResponse) -> None:
    """Idempotent: one key, one inference, created by one reply at most."""
    inference_id = reply.inference.inference_id
    assert asked.inference_id in {"", inference_id}, (
        f"Idempotent: {asked.key} was {asked.inference_id}, and is {inference_id}"
    )
    assert not (reply.created and asked.is_created), f"Idempotent: {asked.key} created {inference_id} again"
    assert reply.created or asked.sent_count > 1, f"Idempotent: {asked.key} was new, and created nothing"


def check_creation(ledger: SessionLedger, reply: CreateSessionResponse) -> None:
    """Idempotent: a session that was acknowledged is not created again."""
    is_new = not ledger.created.is_set()
    assert is_new or not reply.created, f"Idempotent: the session {ledger.session_id} was created again: {reply}"


def check_own(asked: Asked, inference_id: str, others: Collection[str]) -> None:
    """Idempotent: two keys, two inferences."""
    assert inference_id not in others, f"Idempotent: {asked.key} is {inference_id}, which another key started"


def check_refusal(asked: Asked, before: Inference, reason: str) -> None:
    """Idempotent: a start is refused for a busy session, and never once it was accepted."""
    assert reason == "SESSION_BUSY", f"Available: {asked.key} is refused: {reason}"
    assert not before.inference_id, f"Idempotent: {asked.key} was {before.inference_id}, and is refused: {reason}"


def check_starts(logged: Collection[str], known: Collection[str], unanswered: int) -> None:
    """Idempotent: each inference in the log was started, by a key that was answered or may be yet."""
    strangers = set(logged) - set(known)
    assert len(strangers) <= unanswered, f"Idempotent: {strangers} were started by {unanswered} unanswered requests"


def check_single_active(session: Session, inferences: Iterable[Inference]) -> None:
    """SingleActive, as the server tells it: at most one inference of a session is active."""
    active = [i.inference_id for i in inferences if i.state not in (*TERMINAL, inference_pb2.INFERENCE_STATE_QUEUED)]
    assert len(active) <= 1, f"SingleActive: {active} of session {session.session_id}"


def check_busy(named: str, unfinished: Collection[str], unanswered: int) -> None:
    """Terminal: only what has not ended makes a session busy."""
    assert named in unfinished or unanswered, f"Terminal: the session is busy with {named}, which is not unfinished"


def check_made_room(asked: Asked, other: Asked) -> None:
    """SingleActive: with the policy REJECT, a start is accepted once what was unfinished before has ended."""
    has_ended = other.seen.state in TERMINAL
    assert has_ended, f"SingleActive: {asked.key} was accepted while {other.key} had not ended: {other.seen}"


def check_cancel_told(now: Inference) -> None:
    """Durable: a cancel is acknowledged once it was recorded, or came too late."""
    is_told = now.state in TERMINAL or now.HasField("cancel_requested_time")
    assert is_told, f"Durable: a cancel was acknowledged and not recorded: {now}"


def check_met(ledger: SessionLedger, inference_id: str) -> Asked:
    """SingleActive: what a cancel of a session meets was started there; return what asked for it."""
    met = ledger.find(inference_id)
    assert met is not None, f"SingleActive: a cancel of {ledger.session_id} met {inference_id}, which nobody started"
    return met


def check_in_time(asked: Asked, waited_seconds: float, seconds: float) -> None:
    """Terminal: what has to end ends in time."""
    told = f"{asked.play.kind} is stuck after {waited_seconds:.1f} s"
    assert waited_seconds < seconds or asked.seen.state in TERMINAL, f"Terminal: {told}: {asked.seen}"


def check_outcome(asked: Asked, ends: int, *, is_cancel_kept: bool) -> None:
    """Terminal: an inference ended as its play does, unless something came in between.

    `ends` counts the servers that went away since it was asked for. `is_cancel_kept`: its cancel was acknowledged by a
    server that went away before it ended.
    """
    now, play = asked.seen, asked.play
    told = f"{play.kind} {now.inference_id} of session {now.session_id}"
    if now.state == CANCELLED:
        assert asked.cancel_count, f"Terminal: {told} is CANCELLED, and nobody asked for it"
        assert now.finish_class == inference_pb2.FINISH_CLASS_INTERRUPTED, f"Terminal: {told} is cancelled: {now}"
    elif now.state == FAILED and now.error.reason == reasons.ERROR_REASON_ATTEMPT_LOST:
        assert ends >= max(now.attempts_max, 1), f"Terminal: {told} lost its attempts, with {ends} servers"
        assert not is_cancel_kept, f"Durable: {told} lost its attempt, and the cancel that was acknowledged before"
    else:
        found = (now.state, now.error.reason, now.finish_class if now.state == SUCCEEDED else play.finish_class)
        due = (play.state, play.reason, play.finish_class)
        assert found == due, f"Terminal: {told} ended with {found}, not {due}: {now}"
        assert not play.is_endless, f"Terminal: {told} ended by itself: {now}"


def check_end_told(now: Inference, story: Sequence[Event]) -> None:
    """Terminal: log and inference tell of the same end."""
    finished = story[-1].inference_finished
    assert now.state in TERMINAL, f"Terminal: {now.inference_id} ended at {story[-1].sequence} of the log, and is {now}"
    assert OUTCOMES[now.state] == finished.WhichOneof("outcome"), f"Terminal: {now} ended in the log with {finished}"
    assert now.error == finished.failed.error, f"Terminal: {now} ended in the log with {finished}"
    assert now.usage == finished.usage, f"Terminal: {now} ended in the log with {finished}"
    ends = (now.first_sequence, now.last_sequence)
    assert ends == (story[0].sequence, story[-1].sequence), f"Gapless: {now} is in the log up to {story[-1].sequence}"


def check_attempts(now: Inference, story: Sequence[Event], stops: int) -> None:
    """Terminal: attempts are counted, those aside that the servers handed back which were told to stop."""
    attempts = [event.attempt for event in story if event.HasField("inference_started")]
    steps = [after - before for before, after in pairwise([0, *attempts])]
    assert set(steps) <= {0, 1}, f"Terminal: the attempts of {now.inference_id} were {attempts}"
    again = len(attempts) - len(set(attempts))
    assert again <= stops, f"Terminal: the attempts of {now.inference_id} were {attempts}, with {stops} stops"
    last = max(attempts, default=0)
    assert last < now.attempts_max, f"Terminal: {now.inference_id} had attempt {last} of {now.attempts_max}"


def check_turn_told(turn: Turn, story: Sequence[Event]) -> None:
    """Durable: the turn has what the log tells, whole or in part, and is closed."""
    assert turn.state == turn_pb2.TURN_STATE_CLOSED, f"Terminal: turn {turn.index} is not closed"
    said: dict[str, tuple[str, bool]] = {}
    for event in holding(story):
        name = event.WhichOneof("payload") or ""
        text, is_whole = said.get(event.entity, ("", False))
        if name in {"llm_delta", "llm_thinking_delta", "tool_delta"}:
            said[event.entity] = (text + getattr(event, name).delta, is_whole)
        elif name in {"llm_final", "llm_thinking_final", "tool_call"}:
            said[event.entity] = (text, True)
        elif name == "tool_start":
            said[event.entity] = ("", False)
    kept = {
        block.tool_call.id if block.HasField("tool_call") else block.id: (
            _text_of(block).text,
            block.status == turn_pb2.BLOCK_STATUS_COMPLETE,
        )
        for block in produced(turn)
    }
    assert kept == said, f"Durable: turn {turn.index} has {kept}, and the log told {said}"


def check_output(parts: Sequence[Part], state: int, turn: Turn) -> None:
    """What an inference produced is what its play says, once; a part of it from the beginning if it did not succeed."""
    found = [_text_of(block) for block in produced(turn)]
    if state == SUCCEEDED:
        assert found == list(parts), f"Unique: turn {turn.index} has {found}, not {parts}"
    for number, (part, due) in enumerate(zip(found, parts, strict=False)):
        is_whole = part.text == due.text if number < len(found) - 1 else due.text.startswith(part.text)
        is_due = is_whole and part.kind == due.kind
        assert is_due, f"Unique: turn {turn.index} has {found}, no beginning of {parts}"
    assert len(found) <= len(parts), f"Unique: turn {turn.index} has {found}, more than {parts}"


def check_digest(what: str, known: bytes, now: bytes) -> None:
    """Durable: what had ended does not change."""
    assert now == known, f"Durable: {what} was final, and has changed"


def check_count(session_id: str, count: int, due: int) -> None:
    """Durable: as many events as there were are there."""
    assert count == due, f"Durable: {count} events of {session_id}, of {due} that were there"


def check_not_reopened(index: int, closed: Collection[int]) -> None:
    """Durable: a turn that was CLOSED stays so."""
    assert index not in closed, f"Durable: turn {index} was closed, and is open again"


def check_gone(session_id: str, reason: str) -> None:
    """Idempotent: the keys of a deleted session start nothing."""
    assert reason == "SESSION_NOT_FOUND", f"Idempotent: a key of the deleted session {session_id} answers {reason}"


def check_settled(late: Iterable[SessionLedger]) -> None:
    """Terminal: after a restart every session becomes usable again: it takes an inference, which ends."""
    stuck = {ledger.session_id: [asked.seen for asked in ledger.unfinished.values()] for ledger in late}
    assert not stuck, f"Terminal: sessions that are not usable again, and what they have: {stuck}"


def check_caught_up(ledger: SessionLedger, sequence: int) -> None:
    """Resumable: the watchers of a session get to its newest event, and to the end of the inference they watch."""
    behind = [(watch.inference_id or "all", watch.position) for watch in ledger.behind(sequence)]
    assert not behind, f"Resumable: watchers of {ledger.session_id} are at {behind}, and the log at {sequence}"


def check_stream_end(ledger: SessionLedger, watch: Watch, *, is_ending: bool) -> None:
    """Resumable, Terminal: a stream ends with its server, with its session, or right after its terminal event."""
    reason, where = watch.end, f"of {ledger.session_id} at {watch.position}"
    if reason in {0, pb.SUBSCRIPTION_END_REASON_DRAINING}:
        assert is_ending, f"Resumable: a running server ended a stream {where}, with {reason}"
    elif reason == pb.SUBSCRIPTION_END_REASON_SESSION_DELETED:
        assert ledger.is_deleting, f"Durable: a stream {where} ended with its session, which nobody deleted"
    else:
        is_told = bool(watch.inference_id and watch.events) and watch.events[-1].HasField("inference_finished")
        assert is_told, f"Terminal: a stream {where} ended with {reason}, and without a terminal event"


def check_streams_ended(ledger: SessionLedger, left: int) -> None:
    """Durable: the streams of a deleted session end."""
    assert left == 0, f"Durable: {ledger.session_id} was deleted, and {left} of its streams go on"


def check_answer(code: str, reason: str) -> None:
    """Available: a server that nobody has told to end serves, and says why it does not do what it is asked."""
    is_fault = reason in {"", "DRAINING", "STORE_UNAVAILABLE", "INTERNAL"}
    assert not is_fault, f"Available: a running server answered {code} {reason}"


def check_exit(code: int, due: Collection[int]) -> None:
    """Available: a server ends when it is told to, and how."""
    assert code in due, f"Available: a server ended with {code}, not with one of {due}"


def check_nothing_left(session_id: str, unfinished: Collection[str]) -> None:
    """Terminal: at the end every inference has ended."""
    assert not unfinished, f"Terminal: {unfinished} of session {session_id} never ended"


def produced(turn: Turn) -> Sequence[turn_pb2.Block]:
    """Return the blocks of a turn, in the view DELTA, that its inference produced."""
    return turn.blocks[turn.given_block_count - turn.inherited_block_count :]


def _changed(name: str, before: Session | Inference, now: Session | Inference) -> str:
    what = before.inference_id if isinstance(before, Inference) else before.session_id
    return f"Durable: {name} of {what} was {getattr(before, name)!r}, is {getattr(now, name)!r}"


def _text_of(block: turn_pb2.Block) -> Part:
    kind = block.WhichOneof("kind") or ""
    return Part(kind, block.tool_call.args if kind == "tool_call" else getattr(block, kind).text)

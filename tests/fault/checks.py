"""What has to hold, check by check: each compares what was seen before with what the server says now.

Every assertion has its broken history in tests/fault/test_checks.py, which fails when one is added without.
"""

from collections.abc import Collection, Iterable, Mapping

from fault.ledger import Asked, SessionLedger
from turnwire.v1 import inference_pb2
from turnwire.v1 import inference_service_pb2 as pb
from turnwire.v1.inference_pb2 import Inference
from turnwire.v1.inference_service_pb2 import StartInferenceResponse
from turnwire.v1.session_pb2 import Session
from turnwire.v1.session_service_pb2 import CreateSessionResponse
from turnwire_conformance.promises import Watch

# The seven promises of event.proto, and what else is promised. A violation begins with the name of what does not hold.
CHECKERS = frozenset(
    {
        *("Durable", "Ordered", "Unique", "Gapless", "Terminal", "Resumable", "Bounded"),
        *("SingleActive", "Idempotent", "CancelEnds", "WaitAgrees", "HistoryImmutable", "NothingStuck", "Available"),
    }
)

SUCCEEDED, FAILED, CANCELLED = (
    inference_pb2.INFERENCE_STATE_SUCCEEDED,
    inference_pb2.INFERENCE_STATE_FAILED,
    inference_pb2.INFERENCE_STATE_CANCELLED,
)
TERMINAL = (SUCCEEDED, FAILED, CANCELLED)

# How long after its cancel an inference may end.
CANCEL_END_SECONDS = 2.0

# How much earlier than asked for a wait may be over, by the client's clock.
WAIT_EARLY_SECONDS = 0.1

GONE = ("SESSION_NOT_FOUND", "INFERENCE_NOT_FOUND")

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
        assert now == before, f"HistoryImmutable: the ended inference was {before}, is {now}"
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
    """NothingStuck: what has to end ends in time."""
    told = f"{asked.play.kind} is stuck after {waited_seconds:.1f} s"
    assert waited_seconds < seconds or asked.seen.state in TERMINAL, f"NothingStuck: {told}: {asked.seen}"


def check_cancel_ends(asked: Asked, waited_seconds: float, seconds: float) -> None:
    """CancelEnds: what was acknowledged as cancelled is known to be terminal in time."""
    told = f"{asked.play.kind} is told to have ended {waited_seconds:.1f} s after its cancel, of {seconds:.1f} s"
    assert waited_seconds < seconds, f"CancelEnds: {told}: {asked.seen}"


def check_cancel_time(asked: Asked, excused_seconds: float) -> None:
    """CancelEnds: by the server's own times, what was cancelled has ended in time."""
    now = asked.seen
    seconds = (now.end_time.ToMicroseconds() - now.cancel_requested_time.ToMicroseconds()) / 1e6
    told = f"{asked.play.kind} ended {seconds:.2f} s after its cancel, {excused_seconds:.2f} s of it excused"
    assert seconds - excused_seconds <= CANCEL_END_SECONDS, f"CancelEnds: {told}: {now}"


def check_not_slowed(asked: Asked, waited_seconds: float, seconds: float) -> None:
    """Bounded: streams that nobody reads do not slow an inference."""
    told = f"{asked.play.kind} is not over after {waited_seconds:.1f} s, with streams that nobody reads"
    assert waited_seconds < seconds or asked.seen.state in TERMINAL, f"Bounded: {told}: {asked.seen}"


def check_not_starved(ledger: SessionLedger, sequence: int) -> None:
    """Bounded: streams that nobody reads do not keep another watcher from what happens."""
    behind = [watch.position for watch in ledger.behind(sequence)]
    told = f"watchers of {ledger.session_id} are at {behind} of {sequence}, beside streams that nobody reads"
    assert not behind, f"Bounded: {told}"


def check_read_on(watch: Watch, head: int, waited_seconds: float, seconds: float) -> None:
    """Resumable: a reader that was slow gets what it is behind, once it reads."""
    told = f"a slow reader of {watch.session_id} is at {watch.position} of {head} after {waited_seconds:.1f} s"
    assert waited_seconds < seconds or watch.position >= head, f"Resumable: {told}"


def check_wait(now: Inference, left_seconds: float, *, has_ended_before: bool) -> None:
    """WaitAgrees: a wait for the end returns the end, or when its time is over; never what the log had left behind."""
    has_ended = now.state in TERMINAL
    assert has_ended or left_seconds <= WAIT_EARLY_SECONDS, f"WaitAgrees: {left_seconds:.1f} s too early: {now}"
    assert has_ended or not has_ended_before, f"WaitAgrees: its end was seen before it was waited for: {now}"


def check_wait_agrees(waited: Inference, now: Inference) -> None:
    """WaitAgrees: what a wait returned is what the inference is."""
    assert waited == now, f"WaitAgrees: a wait returned {waited}, and the inference is {now}"


def check_digest(what: str, known: bytes, now: bytes) -> None:
    """HistoryImmutable: what had ended does not change."""
    assert now == known, f"HistoryImmutable: {what} was final, and has changed"


def check_count(session_id: str, count: int, due: int) -> None:
    """Durable: as many events as there were are there."""
    assert count == due, f"Durable: {count} events of {session_id}, of {due} that were there"


def check_not_reopened(index: int, closed: Collection[int]) -> None:
    """HistoryImmutable: a turn that was CLOSED stays so."""
    assert index not in closed, f"HistoryImmutable: turn {index} was closed, and is open again"


def check_gone(session_id: str, reason: str) -> None:
    """Idempotent: the keys of a deleted session start nothing."""
    assert reason == "SESSION_NOT_FOUND", f"Idempotent: a key of the deleted session {session_id} answers {reason}"


def check_settled(late: Iterable[SessionLedger]) -> None:
    """NothingStuck: once there is no trouble every session becomes usable again: it takes an inference, which ends."""
    stuck = {ledger.session_id: [asked.seen for asked in ledger.unfinished.values()] for ledger in late}
    assert not stuck, f"NothingStuck: sessions that are not usable again, and what they have: {stuck}"


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


def check_back(waited_seconds: float, seconds: float) -> None:
    """Available: a server is back soon after a trouble is over."""
    assert waited_seconds < seconds, f"Available: {waited_seconds:.1f} s after a trouble was over, nothing is answered"


def check_memory(peak_kib: int, kib_max: int) -> None:
    """Bounded: whatever clients do, a server needs no more memory than so much."""
    assert peak_kib <= kib_max, f"Bounded: a server had {peak_kib // 1024} MiB of memory"


def check_exit(code: int, due: Collection[int]) -> None:
    """Available: a server ends when it is told to, and how."""
    assert code in due, f"Available: a server ended with {code}, not with one of {due}"


def check_nothing_left(session_id: str, unfinished: Collection[str]) -> None:
    """NothingStuck: at the end every inference has ended."""
    assert not unfinished, f"NothingStuck: {unfinished} of session {session_id} never ended"


def check_exercised(counts: Mapping[str, int], due: Mapping[str, int]) -> None:
    """No promise: a run that has not done what it is for says nothing, and fails."""
    missing = {name: counts.get(name, 0) for name, count in due.items() if counts.get(name, 0) < count}
    assert not missing, f"the run did too little of {missing}, of {dict(due)}"


def _changed(name: str, before: Session | Inference, now: Session | Inference) -> str:
    what = before.inference_id if isinstance(before, Inference) else before.session_id
    return f"Durable: {name} of {what} was {getattr(before, name)!r}, is {getattr(now, name)!r}"


def checkers_of(violation: BaseException) -> tuple[str, ...]:
    """Return the names of the checkers that report a violation."""
    names = tuple(name.strip() for name in str(violation).partition(":")[0].split(","))
    return names if set(names) <= CHECKERS else ()

"""Reading a whole session from a server that has come back, and holding it against what is known of it."""

import copy
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence

from google.protobuf.message import Message

from fault import checks, ends
from fault.ledger import LABELS, SessionLedger
from fault.link import Life, RefusedError
from fault.logbook import digest
from fault.stage import Stage
from fault.witness import Witness
from turnwire.v1 import inference_service_pb2 as pb
from turnwire.v1 import session_service_pb2, turn_pb2
from turnwire.v1.event_pb2 import Event
from turnwire.v1.inference_pb2 import Inference
from turnwire.v1.turn_pb2 import Turn
from turnwire_conformance.promises import Watch, check_agreement

PAGE = 20
EVENTS_PAGE = 1000

# The deleted sessions that one audit asks for.
DELETED_ASKED = 2


async def audit(stage: Stage, life: Life, ledger: SessionLedger, *, is_full: bool) -> None:
    """Check one session: what has changed since the last audit, or everything. Raises AssertionError."""
    if not ledger.session.session_id or ledger.is_deleting:
        return
    try:
        await _audit(stage, life, ledger, is_full=is_full)
    except RefusedError as refused:
        checks.check_absence(ledger, refused.reason)


async def _audit(stage: Stage, life: Life, ledger: SessionLedger, *, is_full: bool) -> None:
    witness = Witness(ledger, stage.link, stage.tally, stage.pulse)
    watches = [_frozen(watch) for watch in ledger.watches]
    asked = {each.inference_id: (each, each.seen) for each in (*ledger.unfinished.values(), *ledger.recent.values())}
    session, names, ended = ledger.session, set(ledger.names), dict(ledger.ended)
    after = max(0, min([ledger.book.head, *(watch.start for watch in watches)]) - 1)
    if is_full:
        await _check_again(stage, life, ledger, after)
    log = [event async for page in _read_log(life, ledger.session_id, after) for event in page]
    wanted = {*asked, *(ended if is_full else ()), *ledger.book.unfinished, *(event.inference_id for event in log)}
    inferences = await _read_inferences(life, ledger.session_id, wanted)
    wanted_turns = {i.turn_index for i in inferences.values() if i.HasField("turn_index") and i.inference_id in wanted}
    turns = await _read_turns(life, ledger.session_id, {*wanted_turns, *(ledger.turns if is_full else ())})
    request = session_service_pb2.GetSessionRequest(session_id=ledger.session_id)
    now = (await life.ask(life.stubs.session.GetSession, request)).session

    witness.hear_session(session, names, now)
    ledger.book.check_head(now.head_sequence)
    checks.check_all_listed({*asked, *(ended if is_full else ())}, inferences, f"inferences of {ledger.session_id}")
    for inference_id, (each, before) in asked.items():
        witness.hear_inference(each, before, inferences[inference_id], life)
    for inference_id, known in ended.items():
        if inference_id in inferences:
            checks.check_digest(f"inference {inference_id}", known, digest(inferences[inference_id]))
    checks.check_single_active(now, inferences.values())
    check_agreement(log, watches)
    stage.tally.counts["events checked"] += len(log)
    stories = ledger.book.take(log)
    stage.tally.counts["attempts continued"] += sum(
        event.HasField("inference_attempt_lost") for story in stories.values() for event in story
    )
    _check_ends(stage, ledger, stories, inferences, turns)
    _check_turns(ledger, turns)
    _trim(ledger, watches)
    ledger.forget()


def _check_ends(
    stage: Stage,
    ledger: SessionLedger,
    ended: dict[str, list[Event]],
    inferences: dict[str, Inference],
    turns: dict[int, Turn],
) -> None:
    """Check the inferences that have ended since the last audit."""
    for inference_id, story in ended.items():
        inference = inferences[inference_id]
        ends.check_end_told(inference, story)
        asked = ledger.find(inference_id)
        if asked:
            ends.check_attempts(inference, story, stage.link.stops_since(asked.first_life))
        if inference.HasField("turn_index"):
            turn = turns[inference.turn_index]
            ends.check_turn_told(turn, story)
            if asked:
                ends.check_output(asked.play.parts, inference.state, turn)
    known = {*ledger.ended, *ledger.unfinished}
    checks.check_starts({*ended, *ledger.book.unfinished}, known, len(ledger.unanswered))


def _check_turns(ledger: SessionLedger, turns: dict[int, Turn]) -> None:
    for index, turn in turns.items():
        if turn.state == turn_pb2.TURN_STATE_CLOSED:
            now = digest(turn)
            checks.check_digest(f"turn {index}", ledger.turns.setdefault(index, now), now)
        else:
            checks.check_not_reopened(index, ledger.turns)


async def audit_listing(stage: Stage, life: Life) -> None:
    """Check that no session has vanished, and that none came back. Raises AssertionError."""
    gone = [ledger for ledger in stage.deleted if ledger.is_deleted]
    present = [each for each in (*stage.present, *stage.retired) if each.session.session_id]
    listed: set[str] = set()
    request = session_service_pb2.ListSessionsRequest(page_size=1000, labels=LABELS)
    while True:
        page = await life.ask(life.stubs.session.ListSessions, request)
        listed.update(session.session_id for session in page.sessions)
        request.page_token = page.next_page_token
        if not page.next_page_token:
            break
    checks.check_all_listed((each.session_id for each in present if not each.is_deleting), listed, "sessions")
    checks.check_none_listed((each.session_id for each in gone), listed)
    for ledger in gone[-DELETED_ASKED:]:
        await _check_gone(life, ledger)


async def _check_gone(life: Life, ledger: SessionLedger) -> None:
    """Idempotent: whatever was asked for in a deleted session is refused under its key, its creation as well."""
    calls: list[tuple[Callable[..., Awaitable[Message]], Message]] = [
        (life.stubs.inference.StartInference, asked.request)
        for asked in (*ledger.recent.values(), *ledger.unfinished.values())
    ]
    if ledger.created.is_set():
        calls.append((life.stubs.session.CreateSession, ledger.creation))
    for rpc, request in calls:
        try:
            reason = str(await life.ask(rpc, request))
        except RefusedError as refused:
            reason = refused.reason
        checks.check_gone(ledger.session_id, reason)


def check_nothing_left(ledgers: Iterable[SessionLedger]) -> None:
    """Terminal: at the end, every inference that was accepted has ended. Raises AssertionError."""
    for ledger in ledgers:
        if not ledger.is_deleting:
            checks.check_nothing_left(ledger.session_id, {*ledger.unfinished, *ledger.book.unfinished})


def _frozen(watch: Watch) -> Watch:
    frozen = copy.copy(watch)
    frozen.events = list(watch.events)
    return frozen


def _trim(ledger: SessionLedger, checked: list[Watch]) -> None:
    """Forget the events that were checked, but for the last one of each watcher, and the watchers that are done."""
    for watch, done in zip(tuple(ledger.watches), checked, strict=False):
        if done.events:
            del watch.events[: len(done.events) - 1]
            watch.start = done.events[-1].sequence - 1
        else:
            watch.start = done.position
        watch.response_bytes.clear()
        if done.end == pb.SUBSCRIPTION_END_REASON_INFERENCE_FINISHED:
            ledger.watches.remove(watch)


async def _check_again(stage: Stage, life: Life, ledger: SessionLedger, through: int) -> None:
    """Durable: check a log up to a sequence that was reached before, without holding more than a page of it."""
    count = 0
    async for page in _read_log(life, ledger.session_id, 0):
        known = [event for event in page if event.sequence <= through]
        ledger.book.take(known)
        count += len(known)
        if len(known) < len(page):
            break
    checks.check_count(ledger.session_id, count, through)
    stage.tally.counts["events checked again"] += count


async def _read_log(life: Life, session_id: str, after: int) -> AsyncGenerator[Sequence[Event]]:
    """Yield the pages of a log."""
    request = pb.ListEventsRequest(session_id=session_id, after_sequence=after, page_size=EVENTS_PAGE)
    while True:
        page = await life.ask(life.stubs.inference.ListEvents, request)
        yield page.events
        request.page_token = page.next_page_token
        if not page.next_page_token:
            return


async def _read_inferences(life: Life, session_id: str, wanted: set[str]) -> dict[str, Inference]:
    """Return the newest inferences, as far back as is wanted."""
    found: dict[str, Inference] = {}
    request = pb.ListInferencesRequest(session_id=session_id, page_size=PAGE)
    while True:
        page = await life.ask(life.stubs.inference.ListInferences, request)
        found.update({each.inference_id: each for each in page.inferences})
        request.page_token = page.next_page_token
        if not page.next_page_token or wanted <= found.keys():
            return found


async def _read_turns(life: Life, session_id: str, wanted: set[int]) -> dict[int, Turn]:
    """Return the newest turns in the view DELTA, as far back as is wanted."""
    found: dict[int, Turn] = {}
    request = session_service_pb2.ListTurnsRequest(
        session_id=session_id, view=turn_pb2.TURN_VIEW_DELTA, newest_first=True, page_size=PAGE
    )
    while wanted:
        page = await life.ask(life.stubs.session.ListTurns, request)
        found.update({turn.index: turn for turn in page.turns})
        request.page_token = page.next_page_token
        if not page.next_page_token or wanted <= found.keys():
            break
    return found

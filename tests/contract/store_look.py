"""Everything that can be read of a store, compared with the model; and what its logs promise, model or not."""

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import TypeVar

from contract.store_model_state import ENDED, Minted, ModelSession
from contract.store_world import Call, World, compare_chunk
from turnwire_server.domain.event import Event, InferenceAttemptLost, InferenceFinished, InferenceQueued, LlmDelta
from turnwire_server.domain.inference import InferenceState
from turnwire_server.domain.turn import SnapshotPhase, TurnView
from turnwire_server.stores.page import Page
from turnwire_server.wire.event import decode_frames

T = TypeVar("T")

PRINCIPALS = ("local", "other")
_ALL_BYTES = 1 << 30
_ALL = 1000


async def look(world: World) -> None:
    """Compare all that can be read."""
    store, model = world.store, world.model
    for principal in PRINCIPALS:
        for labels in ({}, {"of": "all"}):
            sessions = model.list_sessions(principal, labels)
            await _compare_pages(sessions, lambda before: store.list_sessions(principal, labels, 2, before))  # noqa: B023
        await _look_at_waiting(world, principal, "")
    for session in model.sessions.values():
        await world.read(Call("get_session", session.principal, session.noun.session_id))
        if session.turns:
            await _look_at_turns(world, session)
        if session.log:
            await _look_at_inferences(world, session)
            await _look_at_turns(world, session)
            await _look_at_snapshots(world, session)
            await _look_at_waiting(world, session.principal, session.noun.session_id)
            await _look_at_log(world, session)
    for later in (0, 5, 3600):
        await world.read(Call("find_due", world.now + timedelta(seconds=later), 3))
    await _look_for_retired(world)
    await world.read(Call("get_session", "other", "of-nobody"))
    await world.read(Call("get_inference", "other", "of-nobody"))
    _check_minted(world)


def _check_minted(world: World) -> None:
    """Check that no two of the ids are the same that the store minted, a log's least of all."""
    inferences = world.model.inferences()
    ids = [inference.turn.noun.id for inference in inferences if inference.turn]
    ids += [block.id for inference in inferences for block in inference.blocks]
    known = [each.bound for each in (*world.model.logs, *ids) if isinstance(each, Minted) and each.bound]
    assert len(set(known)) == len(known), f"minted twice: {known}"


async def _look_at_inferences(world: World, session: ModelSession) -> None:
    store, model = world.store, world.model
    where = session.principal, session.noun.session_id
    await world.read(Call("get_first_in_line", *where))
    for states in ((), (InferenceState.QUEUED, *ENDED)):
        inferences = model.list_inferences(*where, states)
        await _compare_pages(inferences, lambda before: store.list_inferences(*where, states, 4, before))  # noqa: B023
    await world.read(Call("get_inference", session.principal, session.inferences[-1].noun.inference_id))


async def _look_at_waiting(world: World, principal: str, session_id: str) -> None:
    for state in (InferenceState.WAITING_FOR_TOOLS, InferenceState.PAUSED):
        where = principal, session_id, state
        waiting = world.model.list_waiting(*where)
        await _compare_pages(waiting, lambda after: world.store.list_waiting(*where, 1, after))  # noqa: B023


async def _look_at_snapshots(world: World, session: ModelSession) -> None:
    for inference in session.inferences:
        for phase in (None, SnapshotPhase.POST_INFERENCE):
            where = session.principal, inference.noun.inference_id, phase
            snapshots = world.model.list_turn_snapshots(*where)
            await _compare_pages(snapshots, lambda after: world.store.list_turn_snapshots(*where, 2, after))  # noqa: B023


async def _look_at_turns(world: World, session: ModelSession) -> None:
    store, model = world.store, world.model
    where = session.principal, session.noun.session_id
    views = ((TurnView.FULL, False), (TurnView.DELTA, True), (TurnView.BASIC, True))
    for view, is_newest_first in views:
        turns = model.list_turns(*where, view)[:: -1 if is_newest_first else 1]
        await _compare_pages(
            turns,
            lambda cursor: store.list_turns(*where, view, 4, cursor, newest_first=is_newest_first),  # noqa: B023
        )
    newest = len(session.turns) - 1
    await world.read(Call("get_turn", *where, None, TurnView.FULL, 0, 2))
    await world.read(Call("get_turn", *where, max(newest, 0), TurnView.FULL, 2, _ALL))
    await world.read(Call("get_turn", *where, max(newest - 1, 0), TurnView.DELTA, 0, 1))


async def _look_for_retired(world: World) -> None:
    for seconds in (-1, 0, 5, 20):
        ended_before = world.now - timedelta(seconds=seconds)
        expected = world.model.find_retired(ended_before)
        found = await world.store.find_retired(ended_before, _ALL, 0)
        assert len(set(found)) == len(found), f"found twice: {found}"
        assert set(found) == expected, f"before {ended_before}: {found}\n  and not {expected}"
        some = await world.store.find_retired(ended_before, 1, 0)
        assert len(some) == min(len(expected), 1)
        assert set(some) <= expected


async def _look_at_log(world: World, session: ModelSession) -> None:
    await world.read(Call("read_base", session.principal, session.noun.session_id))
    middle = (len(session.log) + session.base.through_sequence) // 2
    await _compare_log(world, session, 0, _ALL_BYTES, "")
    await _compare_log(world, session, middle, 400, "")
    await _compare_log(world, session, middle, _ALL_BYTES, session.inferences[-1].noun.inference_id)
    beyond = await world.store.read_log(session.principal, session.noun.session_id, len(session.log) + 1, 1)
    assert (beyond.chunks, beyond.through_sequence) == ((), len(session.log) + 1), f"beyond the head: {beyond}"


async def _compare_log(world: World, session: ModelSession, after: int, limit_bytes: int, inference_id: str) -> None:
    head, base = len(session.log), session.base.through_sequence
    expected = world.model.read_entries(session.principal, session.noun.session_id, after, inference_id)
    position, is_begin = after, True
    while position < head or is_begin:
        page = await world.store.read_log(
            session.principal, session.noun.session_id, position, limit_bytes, inference_id
        )
        assert session.noun.log == page.log, f"log {page.log} and not {session.noun.log!r}"
        assert (page.earliest_sequence, page.head_sequence) == (base + 1, head), f"{page}"
        for chunk in page.chunks:
            size = chunk.last_sequence - chunk.first_sequence + 1
            compare_chunk(chunk, expected[:size], is_whole=chunk.first_sequence > max(position, base) + 1)
            del expected[:size]
        assert page.through_sequence > position or position >= head, f"no way on from {position}: {page}"
        assert not expected or expected[0].sequence > page.through_sequence, f"{expected[0]} was left out"
        position, is_begin = page.through_sequence, False
    assert not expected, f"the log ends before {expected}"
    assert position == max(head, after), f"reached {position} of {head}"


async def _compare_pages(expected: Sequence[T], read: Callable[[int | None], Awaitable[Page[T]]]) -> None:
    found: list[T] = []
    cursor: int | None = None
    while True:
        page = await read(cursor)
        found += page.items
        if page.next is None:
            break
        assert page.items and page.next != cursor, f"a page that leads nowhere: {page}"  # noqa: PT018
        cursor = page.next
    assert list(expected) == found, f"listed {found}\n  and not {expected}"


async def check_promises(world: World) -> None:
    """Check, by what can be read alone, that nothing is left unfinished, and what each log promises."""
    for principal in PRINCIPALS:
        sessions = (await world.store.list_sessions(principal, {}, _ALL, None)).items
        for session in sessions:
            where = principal, session.session_id
            assert not session.active, f"NothingStuck: {session}"
            assert not session.queued_count, f"NothingStuck: {session}"
            inferences = (await world.store.list_inferences(*where, (), _ALL, None)).items
            stuck = [inference for inference in inferences if inference.state not in ENDED]
            assert not stuck, f"NothingStuck: {stuck}"
            base = await world.store.read_base(*where)
            page = await world.store.read_log(*where, 0, _ALL_BYTES)
            events = [event for chunk in page.chunks for event in decode_frames(chunk.data)]
            sequences = [event.sequence for event in events]
            assert sequences == list(range(base.through_sequence + 1, session.head_sequence + 1)), (
                f"Gapless: {sequences}"
            )
            for inference in inferences:
                own = [event for event in events if event.inference_id == inference.inference_id]
                if inference.first_sequence > base.through_sequence:
                    _check_inference(own)


def _check_inference(events: Sequence[Event]) -> None:
    """Check the whole log of an inference that has ended."""
    payloads = [event.payload for event in events]
    assert isinstance(payloads[0], InferenceQueued), f"begins with {payloads[0]}"
    ends = [position for position, payload in enumerate(payloads, 1) if isinstance(payload, InferenceFinished)]
    assert ends == [len(payloads)], f"Terminal: {payloads}"
    said = Counter(payload.delta for payload in payloads if isinstance(payload, LlmDelta))
    assert not said or max(said.values()) == 1, f"Unique: {said}"
    sequences = {event.sequence for event in events}
    for event in events:
        if isinstance(event.payload, InferenceAttemptLost):
            holds = event.payload.superseded_after_sequence
            assert holds in sequences, f"{event} holds through an event of another inference"
            assert holds < event.sequence, f"{event} holds through what comes after it"
            void = [each.payload for each in events if holds < each.sequence < event.sequence]
            assert all(isinstance(payload, LlmDelta) for payload in void), f"{event} makes {void} void"

"""Reading a log as its fold: the same events whatever is cut off while it is read, and never those of another log."""

from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from contract.store_harness import Harness
from support.session_logs import CODEC, DisturbedStore, fold, open_disturbed, tell, write_log
from turnwire_server.domain.errors import EventsCompactedError, SessionNotFoundError
from turnwire_server.domain.event import Event, InferenceFinished, LlmDelta, LlmStart
from turnwire_server.events.folded_log import PART_BYTES_AIM, TRIES_MAX, Part, read_snapshot
from turnwire_server.stores.base import Base
from turnwire_server.wire.event import decode_frames, encode_frame


@pytest.fixture
async def harness() -> AsyncIterator[Harness]:
    opened = await Harness().open(open_disturbed)
    yield opened
    await opened.end()


def _store(harness: Harness) -> DisturbedStore:
    assert isinstance(harness.store, DisturbedStore)
    return harness.store


async def _parts(harness: Harness, through: int, inference_id: str = "") -> list[Part]:
    log = (await harness.store.get_session("local", "s")).log
    parts = read_snapshot(harness.store, "local", "s", log, through, CODEC, inference_id)
    async with aclosing(parts):
        return [part async for part in parts]


async def _snapshot(harness: Harness, through: int, inference_id: str = "") -> list[Event]:
    parts = await _parts(harness, through, inference_id)
    assert [part.is_last for part in parts] == [False] * (len(parts) - 1) + [True]
    return decode_frames(b"".join(frame for part in parts for frame in part.frames))


async def _cut(harness: Harness, log: list[Event], through: int) -> None:
    """Cut the log and store what the events amount to."""
    fold_bytes = b"".join(map(encode_frame, fold(log[:through])))
    await harness.store.compact("local", "s", Base(through, fold_bytes))


def _cuts(log: list[Event]) -> list[int]:
    """Return where the log may be cut: before the first event of what has not ended."""
    ended = {event.inference_id for event in log if isinstance(event.payload, InferenceFinished)}
    return list(range(1, next(e.sequence for e in log if e.inference_id not in ended)))


async def test_the_snapshot_is_the_fold_of_the_log_up_to_its_sequence(harness: Harness) -> None:
    log = await write_log(harness)
    for through in range(len(log) + 1):
        assert await _snapshot(harness, through) == fold(log[:through])


async def test_after_a_cut_anywhere_it_is_the_same(harness: Harness) -> None:
    log = await write_log(harness)
    for cut in _cuts(log):
        await _cut(harness, log, cut)
        for through in range(cut, len(log) + 1):
            assert await _snapshot(harness, through) == fold(log[:through])
        for name in {event.inference_id for event in log}:
            expected = [event for event in fold(log) if event.inference_id == name]
            assert await _snapshot(harness, len(log), name) == expected


async def test_a_cut_between_two_reads_changes_nothing(harness: Harness) -> None:
    log = await write_log(harness)
    expected, cuts = fold(log), _cuts(log)
    store = _store(harness)

    async def cut_further(read: int) -> None:
        if not read % 7 and cuts:
            await _cut(harness, log, cuts.pop(0) if read % 2 else cuts.pop(len(cuts) // 3))

    tries = 0
    while cuts:
        store.disturb = cut_further
        try:
            assert await _snapshot(harness, len(log)) == expected
        except EventsCompactedError:
            tries += 1
        store.disturb = None
    assert await _snapshot(harness, len(log)) == expected
    assert tries < 3, "it begins anew by itself"


async def test_a_log_that_is_cut_again_and_again_is_given_up(harness: Harness) -> None:
    log = await write_log(harness)
    store, cuts = _store(harness), _cuts(log)

    async def cut_ahead(_read: int) -> None:
        position = (await store.read_base("local", "s")).through_sequence
        await _cut(harness, log, position + 1)

    store.disturb = cut_ahead
    with pytest.raises(EventsCompactedError):
        await _snapshot(harness, len(log))
    assert store.read_count == TRIES_MAX < len(cuts)


async def test_a_log_that_was_cut_beyond_the_snapshot_is_told(harness: Harness) -> None:
    log = await write_log(harness)
    await _cut(harness, log, _cuts(log)[-1])
    with pytest.raises(EventsCompactedError) as told:
        await _snapshot(harness, 5)
    assert told.value.metadata["earliest_sequence"] == str(_cuts(log)[-1] + 1)


@pytest.mark.parametrize("is_created_again", [False, True])
async def test_a_deletion_between_two_reads_is_told(harness: Harness, is_created_again: bool) -> None:
    log = await write_log(harness)

    async def delete(read: int) -> None:
        if read == 4:
            await harness.delete("s", force=True)
            if is_created_again:
                await write_log(harness)

    _store(harness).disturb = delete
    with pytest.raises(SessionNotFoundError):
        await _snapshot(harness, len(log))


async def test_parts_are_bounded(harness: Harness) -> None:
    await harness.session()
    for _ in range(2):
        claim = await harness.running()
        piece = "x" * 120_000
        position = await tell(harness, claim, 0, LlmStart(), *(LlmDelta(piece, n * len(piece)) for n in range(12)))
        await harness.finish(claim, position)
    log = await harness.events()
    parts = [part for part in await _parts(harness, len(log)) if part.frames]
    sizes = [sum(map(len, part.frames)) for part in parts]
    assert all(PART_BYTES_AIM <= size < PART_BYTES_AIM + len(piece) + 1000 for size in sizes[:-1])
    assert len(sizes) == 3
    assert decode_frames(b"".join(frame for part in parts for frame in part.frames)) == fold(log)

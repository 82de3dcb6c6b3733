"""Cutting the beginning of a log: its fold takes its place, now and then, and never when it would be wrong."""

from collections.abc import AsyncIterator
from itertools import pairwise

import pytest

from contract.store_harness import Harness
from support.session_logs import CODEC, DisturbedStore, fold, open_disturbed, tell, write_log
from turnwire_server.domain.event import Event, InferenceFinished, LlmDelta, LlmStart
from turnwire_server.events.retention import GONE_PER_EVENT_MAX, retire
from turnwire_server.stores.base import Base, Retired
from turnwire_server.wire.event import decode_frames, encode_frame


@pytest.fixture
async def harness() -> AsyncIterator[Harness]:
    opened = await Harness().open(open_disturbed)
    yield opened
    await opened.end()


def _store(harness: Harness) -> DisturbedStore:
    assert isinstance(harness.store, DisturbedStore)
    return harness.store


async def _retire(harness: Harness, through: int) -> bool:
    return await retire(harness.store, Retired("local", "s", through), CODEC.decode, CODEC.encode)


async def _base(harness: Harness) -> Base:
    return await harness.store.read_base("local", "s")


def _is_finished(log: list[Event], through: int) -> bool:
    """Whether all inferences of the first events have ended."""
    ended = {event.inference_id for event in log if isinstance(event.payload, InferenceFinished)}
    return {event.inference_id for event in log[:through]} <= ended


async def test_the_fold_takes_the_place_of_what_goes_wherever_it_is_cut() -> None:
    for cut in range(1, 40):
        harness = await Harness().open(open_disturbed)
        log = await write_log(harness)
        assert await _retire(harness, cut) == _is_finished(log, cut)
        base = await _base(harness)
        if _is_finished(log, cut):
            assert base == Base(cut, b"".join(map(encode_frame, fold(log[:cut]))))
        else:
            assert base == Base()
        assert await harness.events() == log[base.through_sequence :]
        await harness.end()


async def test_it_is_cut_again_once_an_eighth_more_or_all_can_go(harness: Harness) -> None:
    await harness.session()
    claim = await harness.running()
    position = await tell(harness, claim, 0, LlmStart(), *(LlmDelta("x", n) for n in range(100)))
    await harness.finish(claim, position)
    for _ in range(10):
        await harness.turn("s", "more")
    log = await harness.events()
    bases = [await _base(harness)]
    for through in range(60, len(log) + 1):
        before = bases[-1].through_sequence
        is_enough = (through - before) * GONE_PER_EVENT_MAX >= before or through == len(log)
        assert await _retire(harness, through) == is_enough
        if is_enough:
            bases.append(await _base(harness))
    assert [base.through_sequence for base in bases] == [0, 60, 68, 77, 87, 98, 111, 125, 141, len(log)]
    for base in bases:
        assert decode_frames(base.fold) == fold(log[: base.through_sequence])


async def test_a_long_log_goes_piece_by_piece(harness: Harness) -> None:
    log = await write_log(harness)
    through = max(cut for cut in range(len(log)) if _is_finished(log, cut))
    bases = [Base()]
    for _ in range(len(log)):
        retired = Retired("local", "s", through)
        if not await retire(harness.store, retired, CODEC.decode, CODEC.encode, events_max=3):
            break
        bases.append(await _base(harness))
    pieces = [after.through_sequence - before.through_sequence for before, after in pairwise(bases)]
    assert (pieces[:3], max(pieces)) == ([3, 3, 3], through // GONE_PER_EVENT_MAX)
    assert 0 <= (through - sum(pieces)) * GONE_PER_EVENT_MAX < through  # less is not worth it
    for base in bases:
        assert decode_frames(base.fold) == fold(log[: base.through_sequence])


async def test_nothing_happens_behind_the_base_beyond_the_head_and_to_nobody(harness: Harness) -> None:
    log = await write_log(harness)
    assert await _retire(harness, 10)
    before = await harness.everything()
    for through in (0, 9, 10, len(log), len(log) + 1, 1000):
        assert not await _retire(harness, through)
    assert not await retire(harness.store, Retired("other", "s", 10), CODEC.decode, CODEC.encode)
    assert not await retire(harness.store, Retired("local", "t", 10), CODEC.decode, CODEC.encode)
    assert await harness.everything() == before


async def test_another_process_that_cuts_meanwhile_is_not_undone(harness: Harness) -> None:
    log = await write_log(harness)
    theirs = Base(20, b"".join(map(encode_frame, fold(log[:20]))))

    async def cut(read: int) -> None:
        if read == 3:
            await harness.store.compact("local", "s", theirs)

    _store(harness).disturb = cut
    assert not await _retire(harness, 15)
    assert await _base(harness) == theirs


@pytest.mark.parametrize("read", [1, 2, 5, 9])
@pytest.mark.parametrize("is_created_again", [False, True])
async def test_a_session_that_is_deleted_meanwhile_keeps_nothing(
    harness: Harness, read: int, is_created_again: bool
) -> None:
    await write_log(harness)

    async def delete(at: int) -> None:
        if at == read:
            await harness.delete("s", force=True)
            if is_created_again:
                await write_log(harness)

    _store(harness).disturb = delete
    assert not await _retire(harness, 15)
    if is_created_again:
        assert await _base(harness) == Base()

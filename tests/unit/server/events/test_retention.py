"""Cutting the beginning of a log: its fold takes its place, now and then, and never when it would be wrong."""

from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import datetime, timedelta

import pytest

from contract.store_harness import Harness
from support.session_logs import CODEC, DisturbedStore, fold, open_disturbed, tell, write_log
from turnwire_server.domain.errors import StoreUnavailableError
from turnwire_server.domain.event import Event, InferenceFinished, LlmDelta, LlmStart
from turnwire_server.domain.inference import InferenceState
from turnwire_server.events.folded_log import FrameCodec
from turnwire_server.events.retention import GONE_PER_EVENT_MAX, RETIRED_MAX, Retention, retire
from turnwire_server.stores.base import Base, Retired
from turnwire_server.stores.lease import Claim
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


class Shelf:
    """Sessions with a few inferences each, that were cut before and have a little more to go."""

    def __init__(self, harness: Harness, codec: FrameCodec = CODEC) -> None:
        self.harness = harness
        self.running: dict[str, Claim] = {}
        self.retention = Retention(harness.store, codec)

    async def fill(self, session_id: str) -> None:
        """Make a session of which too little can go, after a first cut; its last inference runs."""
        await self.harness.session(session_id)
        for _ in range(10):
            await self.harness.turn(session_id, "q")
        assert await retire(self.harness.store, await self.retired(session_id), CODEC.decode, CODEC.encode)
        await self.harness.turn(session_id, "more")
        self.running[session_id] = await self.harness.running(session_id)

    async def retired(self, session_id: str) -> Retired:
        found = await self.harness.store.find_retired(self.now(), 1000)
        return next(each for each in found if each.session_id == session_id)

    async def round(self) -> list[str]:
        """Do one round; return what was looked at."""
        found = await self.retention.find(self.now())
        for retired in found:
            with suppress(ValueError, StoreUnavailableError):
                await self.retention.retire(retired)
        return [retired.session_id for retired in found]

    def now(self) -> datetime:
        return self.harness.now + timedelta(seconds=1)


async def test_what_is_left_as_it_is_holds_up_no_other(harness: Harness) -> None:
    shelf = Shelf(harness)
    names = [f"s{n:02}" for n in range(3 * RETIRED_MAX)]
    for name in names:
        await shelf.fill(name)
    seen = [await shelf.round() for _ in range(4)]
    assert sorted(name for names in seen for name in names) == names, "each is looked at once"
    assert [len(names) for names in seen] == [RETIRED_MAX] * 3 + [0]
    await harness.session("z")
    await harness.turn("z", "q")
    assert await shelf.round() == ["z"]
    assert (await harness.store.read_base("local", "z")).through_sequence == 5


async def test_one_that_was_left_is_looked_at_again_once_there_is_more(harness: Harness) -> None:
    shelf = Shelf(harness)
    await shelf.fill("s")
    assert await shelf.round() == ["s"]
    assert await shelf.round() == []
    claim = await harness.start("s")
    assert claim.state is InferenceState.QUEUED
    await harness.finish(shelf.running["s"], 0)
    assert await shelf.round() == ["s"]
    assert await shelf.round() == []


async def test_a_log_that_cannot_be_read_is_told_once(harness: Harness) -> None:
    def refuse(_data: bytes) -> list[Event]:
        raise ValueError("an event of a newer server")

    shelf = Shelf(harness, FrameCodec(refuse, CODEC.encode))
    await harness.session("s")
    await harness.turn("s", "q")
    [found] = await shelf.retention.find(shelf.now())
    with pytest.raises(ValueError, match="newer"):
        await shelf.retention.retire(found)
    assert await shelf.round() == []
    await harness.turn("s", "more")
    assert await shelf.round() == ["s"]


async def test_a_store_that_does_not_answer_is_asked_again(harness: Harness) -> None:
    shelf = Shelf(harness)
    await harness.session("s")
    await harness.turn("s", "q")

    async def fail(_read: int) -> None:
        raise StoreUnavailableError("for a test")

    _store(harness).disturb = fail
    assert await shelf.round() == ["s"]
    _store(harness).disturb = None
    assert await shelf.round() == ["s"]
    assert await harness.events("s") == []

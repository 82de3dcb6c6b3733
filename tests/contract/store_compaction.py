"""What every store promises of cutting off the beginning of a log."""

import pytest

from contract.store_harness import ALL_BYTES, Harness, check_gapless, events_of, gather, texts, user
from turnwire_server.domain.errors import SessionNotFoundError
from turnwire_server.domain.event import Chunk, InferenceQueued
from turnwire_server.domain.inference import InferenceState
from turnwire_server.stores.base import Base
from turnwire_server.stores.page import LogPage

# Where the chunks of the log end that `_write` leaves: queued, claimed, appended, finished; the same again.
_ENDS = (1, 3, 6, 8, 9, 11, 14, 16)


async def _write(harness: Harness) -> bytes:
    """Leave a log of two inferences that have ended; return its bytes."""
    await harness.session("s")
    for _ in range(2):
        claim = await harness.running("s", user("q"))
        await harness.store.append(claim.lease, 0, harness.deltas(claim, "a", "b" * 200, "c" * 20_000))
        await harness.finish(claim, 3)
    chunks = await harness.chunks("s")
    assert [chunk.last_sequence for chunk in chunks] == list(_ENDS)
    return _join(chunks)


def _join(chunks: tuple[Chunk, ...]) -> bytes:
    return b"".join(chunk.data for chunk in chunks)


async def _read(harness: Harness, after: int = 0, inference_id: str = "") -> LogPage:
    return await harness.store.read_log("local", "s", after, ALL_BYTES, inference_id)


async def _compact(harness: Harness, through: int, fold: bytes = b"fold") -> None:
    await harness.store.compact("local", "s", Base(through, fold))


class CompactionPromises:
    """Where a log begins."""

    async def test_a_new_log_is_whole(self, harness: Harness) -> None:
        await harness.session("s")
        assert await harness.store.read_base("local", "s") == Base(0, b"")
        await _compact(harness, 0)
        assert await harness.store.read_base("local", "s") == Base(0, b"")

    @pytest.mark.parametrize("cut", range(1, 17))
    async def test_the_rest_is_as_it_was(self, harness: Harness, cut: int) -> None:
        whole = await _write(harness)
        events, session = await harness.events("s"), await harness.store.get_session("local", "s")
        count = len(harness.commits)
        await _compact(harness, cut)
        assert await harness.store.read_base("local", "s") == Base(cut, b"fold")
        page = await _read(harness)
        assert (page.log, page.earliest_sequence, page.head_sequence) == (session.log, cut + 1, 16)
        assert page.through_sequence == 16
        check_gapless(page.chunks, cut)
        assert whole.endswith(_join(page.chunks))
        assert events_of(page.chunks) == events[cut:]
        if page.chunks:
            assert page.chunks[-1].state is InferenceState.SUCCEEDED
        assert await harness.store.get_session("local", "s") == session
        assert len(harness.commits) == count  # nothing was appended

    @pytest.mark.parametrize("cut", [3, 5, 16])
    async def test_every_cursor_reads_from_the_base_on(self, harness: Harness, cut: int) -> None:
        await _write(harness)
        before = [await _read(harness, after) for after in range(19)]
        await _compact(harness, cut)
        for after, page in enumerate(before):
            now = await _read(harness, after)
            assert (now.earliest_sequence, now.through_sequence) == (cut + 1, page.through_sequence)
            assert _join(now.chunks) == _join(before[min(max(after, cut), 16)].chunks)

    async def test_one_inference_is_read_from_the_base_on(self, harness: Harness) -> None:
        await _write(harness)
        first, second = dict.fromkeys(event.inference_id for event in await harness.events("s"))
        for cut, left in ((5, [6, 7, 8]), (8, []), (10, [])):
            await _compact(harness, cut)
            for inference_id, expected in ((first, left), (second, list(range(max(cut + 1, 9), 17)))):
                page = await _read(harness, 0, inference_id)
                assert [event.sequence for event in events_of(page.chunks)] == expected
                assert page.through_sequence == 16

    async def test_pages_are_bounded_after_a_cut(self, harness: Harness) -> None:
        await _write(harness)
        await _compact(harness, 5)
        page = await harness.store.read_log("local", "s", 0, 1)
        assert [(chunk.first_sequence, chunk.last_sequence) for chunk in page.chunks] == [(6, 6)]
        assert page.through_sequence == 6

    async def test_a_log_is_cut_again_and_again(self, harness: Harness) -> None:
        whole = await _write(harness)
        for cut in (1, 2, 4, 5, 6, 15, 16):
            await _compact(harness, cut, f"fold {cut}".encode())
            assert await harness.store.read_base("local", "s") == Base(cut, f"fold {cut}".encode())
            page = await _read(harness)
            check_gapless(page.chunks, cut)
            assert whole.endswith(_join(page.chunks))

    @pytest.mark.parametrize("cut", [0, 1, 4, 5])
    async def test_a_cut_further_back_does_nothing(self, harness: Harness, cut: int) -> None:
        await _write(harness)
        await _compact(harness, 5, b"first")
        before = await harness.everything()
        await _compact(harness, cut, b"second")
        assert await harness.everything() == before
        assert await harness.store.read_base("local", "s") == Base(5, b"first")

    async def test_a_cut_beyond_the_head_is_refused(self, harness: Harness) -> None:
        await _write(harness)
        before = await harness.everything()
        for cut in (17, 1000):
            with pytest.raises(ValueError, match=r"."):
                await _compact(harness, cut)
        assert await harness.everything() == before
        await harness.session("t")
        with pytest.raises(ValueError, match=r"."):
            await harness.store.compact("local", "t", Base(1, b"x"))

    @pytest.mark.parametrize("then", [*InferenceState][:4])
    async def test_what_has_not_ended_is_not_cut(self, harness: Harness, then: InferenceState) -> None:
        await _write(harness)
        if then is InferenceState.RUNNING:
            await harness.running("s")
        else:
            await harness.leaseless("s", then)
        await harness.start("s")
        head = (await harness.store.get_session("local", "s")).head_sequence
        before = await harness.everything()
        for cut in (17, 18, head - 1, head):
            with pytest.raises(ValueError, match=r"."):
                await _compact(harness, cut)
        assert await harness.everything() == before
        await _compact(harness, 16)
        assert (await _read(harness)).chunks[0].first_sequence == 17

    async def test_what_only_waits_in_line_is_not_cut(self, harness: Harness) -> None:
        await harness.session("s")
        claim = await harness.running("s")
        waiting = await harness.start("s")
        await harness.finish(claim, 0)
        assert waiting.first_sequence == 4
        with pytest.raises(ValueError, match=r"."):
            await _compact(harness, 4)
        await _compact(harness, 3)
        assert (await harness.payloads("s"))[0] == InferenceQueued(1)
        await harness.cancel(waiting)
        await _compact(harness, 7)
        assert await harness.chunks("s") == ()

    async def test_appends_go_on_after_everything_was_cut(self, harness: Harness) -> None:
        await _write(harness)
        await _compact(harness, 16)
        page = await _read(harness)
        assert (page.chunks, page.earliest_sequence, page.head_sequence, page.through_sequence) == ((), 17, 16, 16)
        assert (await harness.store.get_session("local", "s")).head_sequence == 16
        inference = await harness.start("s")
        assert (inference.first_sequence, inference.last_sequence) == (17, 17)
        await harness.finish(await harness.claim(), 0)
        page = await _read(harness)
        check_gapless(page.chunks, 16)
        assert page.head_sequence == page.through_sequence == 21

    async def test_turns_and_inferences_are_not_cut(self, harness: Harness) -> None:
        await _write(harness)
        await harness.turn("s", "more", "of it")
        turns = [await harness.full("s", index) for index in range(3)]
        listed = await harness.store.list_inferences("local", "s", (), 9, None)
        await _compact(harness, (await harness.store.get_session("local", "s")).head_sequence)
        assert [await harness.full("s", index) for index in range(3)] == turns
        assert await harness.store.list_inferences("local", "s", (), 9, None) == listed
        await harness.turn("s", "and", "on")
        assert texts(await harness.full("s", None))[-2:] == ["and", "on"]

    async def test_what_was_only_just_appended_can_be_cut(self, harness: Harness) -> None:
        await harness.session("other")
        await harness.session("s")
        claim = await harness.running("s")
        results = await gather(  # a store that commits in groups has these in one transaction
            *(harness.start("other") for _ in range(5)),
            harness.store.append(claim.lease, 0, harness.deltas(claim, "a", "b")),
            harness.finish(claim, 2),
            harness.store.compact("local", "s", Base(6, b"most")),
            harness.start("s"),
        )
        assert not [result for result in results if isinstance(result, BaseException)]
        page = await _read(harness)
        assert (page.earliest_sequence, page.head_sequence) == (7, 8)
        check_gapless(page.chunks, 6)
        assert [event.sequence for event in events_of(page.chunks)] == [7, 8]

    async def test_the_log_of_nobody(self, harness: Harness) -> None:
        await harness.session("s", principal="other")
        for call in (harness.store.read_base("local", "s"), _compact(harness, 0), _compact(harness, 1)):
            with pytest.raises(SessionNotFoundError) as caught:
                await call
            assert caught.value.metadata == {"session_id": "s"}

"""What every store promises of the event log."""

import asyncio
from dataclasses import replace
from types import NoneType

import pytest

from contract.store_harness import ALL_BYTES, Harness, check_gapless, events_of, gather
from turnwire_server.domain.errors import SessionNotFoundError
from turnwire_server.domain.event import InferenceFinished, LlmDelta
from turnwire_server.domain.inference import InferenceState
from turnwire_server.stores.lease import Claim, Fenced, Step
from turnwire_server.stores.sequence import CHUNK_BYTES_MAX
from turnwire_server.wire.event import decode_frames

_WRITERS = 50
_APPENDS = 6


class LogPromises:
    """Ordered, Unique, Gapless, Terminal, Resumable."""

    async def test_an_empty_log(self, harness: Harness) -> None:
        session = await harness.session("s")
        page = await harness.store.read_log("local", "s", 0, ALL_BYTES)
        assert (page.log, page.chunks) == (session.log, ())
        assert (page.earliest_sequence, page.head_sequence, page.through_sequence) == (1, 0, 0)
        with pytest.raises(SessionNotFoundError):
            await harness.store.read_log("local", "t", 0, ALL_BYTES)

    async def test_a_cursor_beyond_the_head_reads_nothing(self, harness: Harness) -> None:
        await harness.session("s")
        await harness.start("s")
        page = await harness.store.read_log("local", "s", 9, ALL_BYTES)
        assert (page.chunks, page.head_sequence, page.through_sequence) == ((), 1, 9)

    async def test_every_cursor_reads_the_same_bytes(self, harness: Harness) -> None:
        await harness.session("s")
        for _ in range(2):
            claim = await harness.running("s")
            await harness.store.append(claim.lease, 0, harness.deltas(claim, "a", "b" * 200, "c" * 20_000))
            await harness.finish(claim, 3)
        whole = b"".join(chunk.data for chunk in await harness.chunks("s"))
        head = (await harness.store.get_session("local", "s")).head_sequence
        frames = await harness.events("s")
        for after in range(head + 1):
            page = await harness.store.read_log("local", "s", after, ALL_BYTES)
            tail = b"".join(chunk.data for chunk in page.chunks)
            assert whole.endswith(tail)
            assert decode_frames(tail) == frames[after:]
            check_gapless(page.chunks, after)
            assert page.through_sequence == head

    async def test_pages_are_bounded_and_join_to_the_whole(self, harness: Harness) -> None:
        await harness.session("s")
        claim = await harness.running("s")
        for position in range(20):
            await harness.store.append(claim.lease, position, harness.deltas(claim, "x" * 1000))
        joined = b""
        after, pages = 0, 0
        while True:
            page = await harness.store.read_log("local", "s", after, 3000)
            data = b"".join(chunk.data for chunk in page.chunks)
            assert 0 < len(data) <= 3000
            check_gapless(page.chunks, after)
            joined += data
            pages += 1
            assert page.through_sequence == page.chunks[-1].last_sequence
            after = page.through_sequence
            if after == page.head_sequence:
                break
        assert joined == b"".join(chunk.data for chunk in await harness.chunks("s"))
        assert pages > 5

    async def test_a_page_has_at_least_one_chunk(self, harness: Harness) -> None:
        await harness.session("s")
        await harness.start("s")
        page = await harness.store.read_log("local", "s", 0, 1)
        assert [chunk.first_sequence for chunk in page.chunks] == [1]

    async def test_one_inference_can_be_read_alone(self, harness: Harness) -> None:
        await harness.session("s")
        first = await harness.running("s")
        second = await harness.start("s")
        await harness.store.append(first.lease, 0, harness.deltas(first, "a"))
        await harness.finish(first, 1)
        claim = await harness.claim()
        await harness.finish(claim, 0)
        head = (await harness.store.get_session("local", "s")).head_sequence
        for inference_id in (first.inference.inference_id, second.inference_id):
            expected = [event for event in await harness.events("s") if event.inference_id == inference_id]
            for after in range(head + 1):
                page = await harness.store.read_log("local", "s", after, ALL_BYTES, inference_id)
                assert events_of(page.chunks) == [event for event in expected if event.sequence > after]
                assert page.through_sequence == head
            page = await harness.store.read_log("local", "s", 0, 1, inference_id)
            assert page.through_sequence == page.chunks[0].last_sequence
        nothing = await harness.store.read_log("local", "s", 0, ALL_BYTES, "nothing")
        assert (nothing.chunks, nothing.through_sequence) == ((), head)

    async def test_a_chunk_is_of_one_inference_and_bounded(self, harness: Harness) -> None:
        await harness.session("s")
        claim = await harness.running("s")
        half = "x" * (CHUNK_BYTES_MAX // 2)
        await harness.store.append(claim.lease, 0, harness.deltas(claim, half, "a", half, half, "b"))
        await gather(
            harness.store.append(claim.lease, 5, harness.deltas(claim, "c")),
            harness.start("s"),
            harness.store.append(claim.lease, 6, harness.deltas(claim, "d")),
        )
        chunks = await harness.chunks("s")
        check_gapless(chunks)
        assert max(len(chunk.data) for chunk in chunks) <= CHUNK_BYTES_MAX
        assert len(chunks) > 4

    async def test_chunks_say_where_they_moved_their_inference(self, harness: Harness) -> None:
        await harness.session("s")
        claim = await harness.running("s")
        await harness.store.append(claim.lease, 0, harness.deltas(claim, "a"))
        await harness.finish(claim, 1)
        states = [chunk.state for chunk in await harness.chunks("s")]
        assert states == [InferenceState.QUEUED, InferenceState.RUNNING, None, InferenceState.SUCCEEDED]

    async def test_a_large_step_says_where_it_moved_its_inference_in_its_last_chunk(self, harness: Harness) -> None:
        await harness.session("s")
        claim = await harness.running("s")
        events = harness.deltas(claim, *("x" * (CHUNK_BYTES_MAX // 2) for _ in range(4)))
        step = Step(1, events=tuple(events), then=InferenceState.PAUSED)
        await harness.store.commit_step(claim.lease, 0, step)
        states = [chunk.state for chunk in (await harness.chunks("s"))[2:]]
        assert len(states) >= 3
        assert states == [*(None for _ in states[1:]), InferenceState.PAUSED]

    async def test_a_caller_that_goes_away_loses_and_doubles_nothing(self, harness: Harness) -> None:
        await harness.session("s")
        claim = await harness.running("s")
        events = harness.deltas(claim, "a")
        for ticks in range(4):
            call = asyncio.create_task(harness.store.append(claim.lease, ticks, events))
            for _ in range(ticks):
                await asyncio.sleep(0)
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)
            await harness.store.append(claim.lease, ticks, events)  # whether or not it was: it is now
        assert len(await harness.events("s")) == 7

    async def test_the_log_is_gapless_while_many_write(self, harness: Harness) -> None:
        sessions = [f"s{number}" for number in range(5)]
        for session_id in sessions:
            await harness.session(session_id)

        async def write(session_id: str, claim: Claim) -> None:
            for number in range(_APPENDS):
                await harness.store.append(claim.lease, number * 3, harness.deltas(claim, "a", "b", "c"))
                await harness.start(session_id)  # from outside the lease
            await harness.finish(claim, _APPENDS * 3)

        async def work() -> None:
            for _ in range(_WRITERS // len(sessions)):
                await gather(*(harness.start(session_id) for session_id in sessions))
                claims = await harness.claims(limit=len(sessions))
                await asyncio.gather(*(write(claim.inference.session_id, claim) for claim in claims))

        async def watch(session_id: str) -> None:
            while not worker.done():
                page = await harness.store.read_log("local", session_id, 0, ALL_BYTES)
                check_gapless(page.chunks)
                last = page.chunks[-1].last_sequence if page.chunks else 0
                assert last == page.head_sequence == page.through_sequence
                await asyncio.sleep(0)

        worker = asyncio.create_task(work())
        await asyncio.gather(worker, *(watch(session_id) for session_id in sessions))
        for session_id in sessions:
            ends = [event.inference_id for event in await harness.events(session_id) if _is_end(event.payload)]
            assert len(ends) == len(set(ends)) == _WRITERS // len(sessions)

    async def test_appends_that_arrive_together_have_each_its_own_outcome(self, harness: Harness) -> None:
        for name in ("a", "b", "c"):
            await harness.session(name)
            await harness.start(name)
        a, b, c = sorted(await harness.claims(), key=lambda claim: claim.inference.session_id)
        stranger = replace(b.lease, token=harness.mint())
        for position in range(20):
            outcomes = await asyncio.gather(
                harness.store.append(a.lease, position, harness.deltas(a, f"a{position}")),
                harness.store.append(b.lease, position + 1, harness.deltas(b, "too early")),
                harness.store.append(c.lease, position, harness.deltas(c, f"c{position}")),
                harness.store.append(c.lease, position, harness.deltas(c, f"c{position}")),  # sent again
                harness.store.append(stranger, position, harness.deltas(b, "not its own")),
                harness.store.append(b.lease, position, harness.deltas(b, f"b{position}")),
                return_exceptions=True,
            )
            assert [type(outcome) for outcome in outcomes] == [NoneType, Fenced, NoneType, NoneType, Fenced, NoneType]
        for name in ("a", "b", "c"):
            deltas = [event.payload for event in await harness.events(name) if isinstance(event.payload, LlmDelta)]
            assert [delta.delta for delta in deltas] == [f"{name}{position}" for position in range(20)]

    async def test_many_append_to_one_log(self, harness: Harness) -> None:
        await harness.session("s")
        claim = await harness.running("s")
        events = harness.deltas(claim, "a")
        results = await gather(
            *(harness.store.append(claim.lease, position, events) for position in range(_WRITERS)),
            *(harness.start("s") for _ in range(_WRITERS)),
        )
        assert not [result for result in results if isinstance(result, Exception)]
        assert len(await harness.events("s")) == 3 + 2 * _WRITERS


def _is_end(payload: object) -> bool:
    return isinstance(payload, InferenceFinished)

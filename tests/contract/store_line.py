"""What every store promises of the line of a session: order, displacing, cancelling, listing."""

from datetime import timedelta

import pytest

from contract.store_harness import LEASELESS, Harness, admit, llm, texts, user
from turnwire_server.domain.errors import InferenceNotFoundError, NoActiveInferenceError, SessionNotFoundError
from turnwire_server.domain.event import Cancelled, InferenceFinished, TurnClosed
from turnwire_server.domain.inference import (
    ConflictPolicy,
    FinishClass,
    InferenceConfig,
    InferenceState,
    Overrides,
)
from turnwire_server.domain.turn import TurnState
from turnwire_server.stores.lease import Heartbeat, Running
from turnwire_server.stores.start import Admission

REJECT, ENQUEUE, INTERRUPT, ROLLBACK = ConflictPolicy


class LinePromises:
    """The order in which inferences run, and what is displaced."""

    async def test_the_line_is_first_in_first_out(self, harness: Harness) -> None:
        await harness.session("s")
        started = [await harness.start("s") for _ in range(4)]
        assert [each.queue_position for each in started] == [1, 2, 3, 4]
        ran: list[str] = []
        for _ in started:
            claim = await harness.claim()
            ran.append(claim.inference.inference_id)
            await harness.finish(claim, 0)
        assert ran == [each.inference_id for each in started]

    async def test_the_oldest_of_all_sessions_runs_first(self, harness: Harness) -> None:
        for session_id in ("b", "a", "c"):
            await harness.session(session_id)
        for session_id in ("c", "a", "c", "b"):
            await harness.start(session_id)
        claims = await harness.claims(limit=2)
        assert [claim.inference.session_id for claim in claims] == ["c", "a"]
        assert [claim.inference.session_id for claim in await harness.claims()] == ["b"]

    async def test_queue_positions_move_up(self, harness: Harness) -> None:
        await harness.session("s")
        first, second, third = [await harness.start("s") for _ in range(3)]
        claim = await harness.claim()
        assert await harness.positions(first, second, third) == [None, 1, 2]
        await harness.store.hand_back(claim.lease, 0, is_loss=False)
        assert await harness.positions(first, second, third) == [1, 2, 3]

    async def test_the_first_in_line_is_the_active_one_or_the_next(self, harness: Harness) -> None:
        await harness.session("s")
        with pytest.raises(NoActiveInferenceError) as caught:
            await harness.store.get_first_in_line("local", "s")
        assert caught.value.metadata == {"session_id": "s"}
        first, second = await harness.start("s"), await harness.start("s")
        assert await harness.store.get_first_in_line("local", "s") == first
        claim = await harness.claim()
        assert await harness.store.get_first_in_line("local", "s") == claim.inference
        urgent = await harness.start("s", policy=INTERRUPT)
        assert await harness.store.get_first_in_line("local", "s") == await harness.get(first)
        await harness.finish(claim, 0, outcome=Cancelled())
        assert await harness.store.get_first_in_line("local", "s") == urgent
        for inference in (urgent, second):
            await harness.cancel(inference)
        with pytest.raises(NoActiveInferenceError):
            await harness.store.get_first_in_line("local", "s")
        with pytest.raises(SessionNotFoundError):
            await harness.store.get_first_in_line("other", "s")

    @pytest.mark.parametrize("then", LEASELESS)
    async def test_what_has_no_lease_is_still_the_first_in_line(self, harness: Harness, then: InferenceState) -> None:
        await harness.session("s")
        claim = await harness.leaseless("s", then)
        await harness.start("s")
        first = await harness.store.get_first_in_line("local", "s")
        assert first == await harness.get(claim.inference)
        assert (first.inference_id, first.state) == (claim.inference.inference_id, then)

    async def test_inferences_are_listed_newest_first_in_pages(self, harness: Harness) -> None:
        await harness.session("s")
        started = [(await harness.start("s")).inference_id for _ in range(5)]
        await harness.claim()
        seen: list[str] = []
        cursor: int | None = None
        while True:
            page = await harness.store.list_inferences("local", "s", (), 2, cursor)
            seen.extend(each.inference_id for each in page.items)
            if page.next is None:
                break
            cursor = page.next
        assert seen == started[::-1]
        running = await harness.store.list_inferences("local", "s", (InferenceState.RUNNING,), 9, None)
        assert [each.inference_id for each in running.items] == started[:1]
        both = (InferenceState.RUNNING, InferenceState.QUEUED)
        assert len((await harness.store.list_inferences("local", "s", both, 9, None)).items) == 5

    async def test_a_page_of_inferences_has_a_mebibyte_or_one_inference(self, harness: Harness) -> None:
        await harness.session("s")
        for size in (2_000_000, 400_000, 400_000, 400_000):
            large = Admission("default", "scripted", InferenceConfig(stop_sequences=("x" * size,)))
            command = harness.command("s", user("hi"), conflict_policy=ENQUEUE)
            await harness.store.start(command, lambda *_, large=large: large)
        sizes: list[int] = []
        cursor: int | None = None
        while True:
            page = await harness.store.list_inferences("local", "s", (), 9, cursor)
            sizes.append(len(page.items))
            if page.next is None:
                break
            cursor = page.next
        assert sizes == [2, 1, 1]

    async def test_a_claim_has_what_the_start_asked_for(self, harness: Harness) -> None:
        await harness.session("s")
        config = InferenceConfig(seed=7)
        overrides = Overrides(config, output_schema="{}", engine_options='{"script": {}}', record_snapshots=True)
        await harness.store.start(harness.command("s", user("hi"), overrides=overrides), admit)
        claim = await harness.claim()
        assert (claim.engine, claim.overrides) == ("scripted", overrides)
        await harness.store.hand_back(claim.lease, 0, is_loss=False)
        claim = await harness.claim()
        await harness.lose(claim)
        claim = await harness.claim()
        assert (claim.engine, claim.overrides) == ("scripted", overrides)


class CancelPromises:
    """Requesting a cancel."""

    async def test_a_cancel_ends_what_never_ran(self, harness: Harness) -> None:
        await harness.session("s")
        inference = await harness.start("s")
        ended = await harness.cancel(inference, "not needed")
        assert (ended.state, ended.finish_class) == (InferenceState.CANCELLED, FinishClass.INTERRUPTED)
        assert (ended.cancel_reason, ended.cancel_requested_time) == ("not needed", harness.now)
        assert (ended.end_time, ended.turn_index, ended.last_sequence) == (harness.now, None, 2)
        [_, finished] = await harness.payloads("s")
        assert isinstance(finished, InferenceFinished)
        assert (finished.outcome, finished.event_count) == (Cancelled("not needed"), 2)
        assert (await harness.store.get_session("local", "s")).turn_count == 0
        assert await harness.cancel(inference, "twice") == ended
        assert await harness.claims() == ()

    async def test_a_cancel_of_what_runs_is_a_flag(self, harness: Harness) -> None:
        await harness.session("s")
        claim = await harness.running("s")
        head = (await harness.store.get_session("local", "s")).head_sequence
        flagged = await harness.cancel(claim.inference, "stop")
        assert (flagged.state, flagged.cancel_reason) == (InferenceState.RUNNING, "stop")
        harness.now += timedelta(seconds=1)
        assert await harness.cancel(claim.inference, "again") == flagged
        running = Running(flagged.inference_id, claim.lease.token, is_cancel_requested=True)
        assert await harness.store.heartbeat("me") == Heartbeat((running,))
        assert (await harness.store.get_session("local", "s")).head_sequence == head
        ended = await harness.finish(claim, 0)  # the first commit wins
        assert (ended.state, ended.cancel_reason) == (InferenceState.SUCCEEDED, "stop")
        assert await harness.cancel(ended, "late") == ended

    @pytest.mark.parametrize("then", LEASELESS)
    async def test_a_cancel_ends_what_has_no_lease(self, harness: Harness, then: InferenceState) -> None:
        await harness.session("s")
        claim = await harness.leaseless("s", then, llm("done so far"))
        queued = await harness.start("s")
        harness.now += timedelta(seconds=1)
        ended = await harness.cancel(claim.inference, "stop")
        assert (ended.state, ended.finish_class) == (InferenceState.CANCELLED, FinishClass.INTERRUPTED)
        assert (ended.end_time, ended.cancel_reason) == (harness.now, "stop")
        closed, finished = (await harness.payloads("s"))[-2:]
        assert closed == TurnClosed(0, 2)
        assert isinstance(finished, InferenceFinished)
        assert finished.outcome == Cancelled("stop")
        turn = await harness.full("s", 0)
        assert (turn.state, texts(turn)) == (TurnState.CLOSED, ["hi", "done so far"])
        assert (await harness.claim()).inference.inference_id == queued.inference_id

    async def test_what_is_lost_is_flagged_as_it_runs(self, harness: Harness) -> None:
        await harness.session("s")
        claim = await harness.running("s")
        await harness.lose(claim)
        flagged = await harness.cancel(claim.inference, "stop")
        assert flagged.state is InferenceState.RUNNING
        lost = await harness.claim()
        assert lost.inference == flagged
        running = Running(flagged.inference_id, lost.lease.token, is_cancel_requested=True)
        assert (await harness.store.heartbeat("me")).running == (running,)

    async def test_a_flag_outlives_a_hand_back_of_its_inference(self, harness: Harness) -> None:
        await harness.session("s")
        claim = await harness.running("s")
        await harness.store.request_cancel("local", claim.inference.inference_id, "stop")
        back = await harness.store.hand_back(claim.lease, 0, is_loss=False)
        assert back.cancel_requested_time is not None
        assert (await harness.cancel(back, "again")).cancel_reason == "stop"

    async def test_an_unknown_inference(self, harness: Harness) -> None:
        for call in (
            harness.store.get_inference("local", "nothing"),
            harness.store.request_cancel("local", "nothing", ""),
        ):
            with pytest.raises(InferenceNotFoundError) as caught:
                await call
            assert caught.value.metadata == {"inference_id": "nothing"}

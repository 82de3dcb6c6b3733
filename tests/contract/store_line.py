"""What every store promises of the line of a session: order, cancelling, expiring, listing."""

from dataclasses import replace
from datetime import timedelta
from unittest.mock import ANY

import pytest

from contract.store_harness import ADMISSION, Harness, admit, user
from turnwire_server.domain.errors import (
    InferenceNotFoundError,
    NoActiveInferenceError,
)
from turnwire_server.domain.event import Cancelled, InferenceFinished
from turnwire_server.domain.inference import ConflictPolicy, FinishClass, InferenceConfig, InferenceState, Overrides
from turnwire_server.stores.base import Admission, Running, SessionState, StartCommand

REJECT, ENQUEUE, INTERRUPT, ROLLBACK = ConflictPolicy


class LinePromises:
    """The order in which inferences run, and how those end that never ran."""

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
        claims = await harness.store.claim("me", 2)
        assert [claim.inference.session_id for claim in claims] == ["c", "a"]
        assert [claim.inference.session_id for claim in await harness.store.claim("me", 9)] == ["b"]

    async def test_queue_positions_move_up(self, harness: Harness) -> None:
        await harness.session("s")
        first, second, third = [await harness.start("s") for _ in range(3)]
        await harness.claim()
        for inference, position in ((first, None), (second, 1), (third, 2)):
            now = await harness.store.get_inference("local", inference.inference_id)
            assert now.queue_position == position

    async def test_interrupt_cancels_the_active_one_and_comes_first(self, harness: Harness) -> None:
        await harness.session("s")
        claim = await harness.running("s")
        waiting = await harness.start("s")
        head = (await harness.store.get_session("local", "s")).head_sequence
        urgent = await harness.start("s", policy=INTERRUPT)
        assert urgent.queue_position == 1
        assert (await harness.store.get_session("local", "s")).head_sequence == head + 1
        flagged = await harness.store.get_inference("local", claim.inference.inference_id)
        assert flagged.cancel_requested_time == harness.now
        assert await harness.store.claim("me", 10) == ()
        await harness.finish(claim, 0, outcome=Cancelled())
        assert (await harness.claim()).inference.inference_id == urgent.inference_id
        assert (await harness.store.get_inference("local", waiting.inference_id)).queue_position == 1

    async def test_interrupt_without_an_active_one_comes_first(self, harness: Harness) -> None:
        await harness.session("s")
        waiting = await harness.start("s")
        urgent = await harness.start("s", policy=INTERRUPT)
        assert (await harness.claim()).inference.inference_id == urgent.inference_id
        untouched = await harness.store.get_inference("local", waiting.inference_id)
        assert untouched.cancel_requested_time is None

    async def test_rollback_builds_on_the_parent_of_what_it_displaces(self, harness: Harness) -> None:
        await harness.session("s")
        await harness.turn("s", "zero", "0")
        displaced = await harness.running("s", user("one"))
        seen: list[SessionState] = []

        def look(_: StartCommand, state: SessionState) -> Admission:
            seen.append(state)
            return ADMISSION

        command = StartCommand("local", "s", (user("two"),), conflict_policy=ROLLBACK)
        await harness.store.start(command, look)
        assert seen[0].parent is not None
        assert seen[0].parent.index == 0
        await harness.finish(displaced, 0, outcome=Cancelled())
        claim = await harness.claim()
        turn = await harness.full("s", claim.inference.turn_index)
        assert (turn.index, turn.parent, turn.block_count) == (2, 0, 3)

    async def test_rollback_of_a_first_turn_builds_on_nothing(self, harness: Harness) -> None:
        await harness.session("s")
        displaced = await harness.running("s", user("one"))
        await harness.start("s", user("two"), policy=ROLLBACK)
        await harness.finish(displaced, 0, outcome=Cancelled())
        claim = await harness.claim()
        turn = await harness.full("s", claim.inference.turn_index)
        assert (turn.index, turn.parent, turn.block_count) == (1, None, 1)

    async def test_a_cancel_ends_what_never_ran(self, harness: Harness) -> None:
        await harness.session("s")
        inference = await harness.start("s")
        ended = await harness.store.request_cancel("local", inference.inference_id, "not needed", is_session=False)
        assert (ended.state, ended.finish_class) == (InferenceState.CANCELLED, FinishClass.INTERRUPTED)
        assert (ended.cancel_reason, ended.cancel_requested_time) == ("not needed", harness.now)
        assert (ended.end_time, ended.turn_index, ended.last_sequence) == (harness.now, None, 2)
        [_, finished] = await harness.payloads("s")
        assert isinstance(finished, InferenceFinished)
        assert finished.outcome == Cancelled("not needed")
        assert finished.event_count == 2
        assert (await harness.store.get_session("local", "s")).turn_count == 0
        again = await harness.store.request_cancel("local", inference.inference_id, "twice", is_session=False)
        assert again == ended
        assert await harness.store.claim("me", 10) == ()

    async def test_a_cancel_of_what_runs_is_a_flag(self, harness: Harness) -> None:
        await harness.session("s")
        claim = await harness.running("s")
        head = (await harness.store.get_session("local", "s")).head_sequence
        flagged = await harness.store.request_cancel("local", claim.inference.inference_id, "stop", is_session=False)
        assert (flagged.state, flagged.cancel_reason) == (InferenceState.RUNNING, "stop")
        harness.now += timedelta(seconds=1)
        again = await harness.store.request_cancel("local", claim.inference.inference_id, "again", is_session=False)
        assert again == flagged
        assert await harness.store.heartbeat("me") == (Running(flagged.inference_id, True),)
        assert (await harness.store.get_session("local", "s")).head_sequence == head
        ended = await harness.finish(claim, 0)  # the first commit wins
        assert (ended.state, ended.cancel_reason) == (InferenceState.SUCCEEDED, "stop")
        after = await harness.store.request_cancel("local", ended.inference_id, "late", is_session=False)
        assert after == ended

    async def test_a_cancel_of_a_session_takes_the_first_in_line(self, harness: Harness) -> None:
        await harness.session("s")
        with pytest.raises(NoActiveInferenceError):
            await harness.store.request_cancel("local", "s", "", is_session=True)
        active = await harness.running("s")
        waiting = await harness.start("s")
        cancelled = await harness.store.request_cancel("local", "s", "", is_session=True)
        assert cancelled.inference_id == active.inference.inference_id
        await harness.finish(active, 0, outcome=Cancelled())
        cancelled = await harness.store.request_cancel("local", "s", "", is_session=True)
        assert (cancelled.inference_id, cancelled.state) == (waiting.inference_id, InferenceState.CANCELLED)
        with pytest.raises(NoActiveInferenceError):
            await harness.store.request_cancel("local", "s", "", is_session=True)

    async def test_an_unknown_inference(self, harness: Harness) -> None:
        for call in (
            harness.store.get_inference("local", "nothing"),
            harness.store.request_cancel("local", "nothing", "", is_session=False),
        ):
            with pytest.raises(InferenceNotFoundError):
                await call

    async def test_what_waits_past_its_deadline_fails(self, harness: Harness) -> None:
        await harness.session("s")
        running = await harness.running("s")
        late = await harness.start("s", timeout=timedelta(seconds=1.5))
        patient = await harness.start("s", timeout=timedelta(seconds=60))
        assert await harness.store.expire(harness.now + timedelta(seconds=1)) == ()
        [expired] = await harness.store.expire(harness.now + timedelta(seconds=1.5))
        assert (expired.inference_id, expired.state) == (late.inference_id, InferenceState.FAILED)
        assert expired.error is not None
        assert (expired.error.reason, expired.error.metadata) == ("DEADLINE_EXCEEDED", {"timeout": "1.5s"})
        assert await harness.store.expire(harness.now + timedelta(seconds=2)) == ()
        assert await harness.store.get_inference("local", late.inference_id) == expired
        assert (await harness.store.get_inference("local", patient.inference_id)).queue_position == 1
        assert await harness.store.heartbeat("me") == (Running(running.inference.inference_id, False),)

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
        both = await harness.store.list_inferences(
            "local", "s", (InferenceState.RUNNING, InferenceState.QUEUED), 9, None
        )
        assert len(both.items) == 5

    async def test_a_claim_has_what_the_start_asked_for(self, harness: Harness) -> None:
        await harness.session("s")
        overrides = Overrides(InferenceConfig(seed=7), output_schema="{}", engine_options='{"script": {}}')
        await harness.store.start(StartCommand("local", "s", (user("hi"),), overrides=overrides), admit)
        claim = await harness.claim()
        assert (claim.engine, claim.overrides, claim.position) == ("scripted", overrides, 0)
        assert await harness.store.reap("you") == (replace(claim, lease=ANY),)

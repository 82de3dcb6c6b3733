"""What every store promises of what time makes due: deadlines, and owners that do not keep them."""

from datetime import timedelta

import pytest

from contract.store_harness import LEASELESS, Harness, llm, texts
from turnwire_server.domain.event import Failed, InferenceFinished, TurnClosed
from turnwire_server.domain.inference import InferenceState
from turnwire_server.domain.turn import TurnState
from turnwire_server.stores.base import OVERDUE_SECONDS
from turnwire_server.stores.lease import Fenced

_OVERDUE = timedelta(seconds=OVERDUE_SECONDS)
_MOMENT = timedelta(milliseconds=1)


def _seconds(count: float) -> timedelta:
    return timedelta(seconds=count)


class SweepPromises:
    """Doing what is due."""

    async def test_nothing_is_due(self, harness: Harness) -> None:
        await harness.session("s")
        await harness.running("s", timeout=_seconds(60))
        await harness.start("s")
        before = await harness.everything()
        for _ in range(2):
            assert not await harness.store.sweep(harness.now)
        assert await harness.everything() == before

    async def test_what_never_ran_before_its_deadline_fails(self, harness: Harness) -> None:
        await harness.session("s")
        running = await harness.running("s")
        late = await harness.start("s", timeout=_seconds(1.5))
        patient = await harness.start("s", timeout=_seconds(60))
        before = await harness.everything()
        await harness.store.sweep(harness.now + _seconds(1))
        assert await harness.everything() == before
        harness.now += _seconds(1.5)
        await harness.sweep()
        expired = await harness.get(late)
        assert (expired.state, expired.end_time, expired.turn_index) == (InferenceState.FAILED, harness.now, None)
        assert expired.error is not None
        assert (expired.error.reason, expired.error.metadata) == ("DEADLINE_EXCEEDED", {"timeout": "1.5s"})
        finished = (await harness.payloads("s"))[-1]
        assert isinstance(finished, InferenceFinished)
        assert (finished.outcome, finished.event_count) == (Failed(expired.error), 2)
        assert (await harness.chunks("s"))[-1].state is InferenceState.FAILED
        assert (await harness.get(patient)).queue_position == 1
        await harness.finish(running, 0)
        assert (await harness.claim()).inference.inference_id == patient.inference_id

    @pytest.mark.parametrize("then", LEASELESS)
    async def test_what_has_no_lease_at_its_deadline_fails(self, harness: Harness, then: InferenceState) -> None:
        await harness.session("s")
        claim = await harness.leaseless("s", then, llm("done so far"), timeout=_seconds(5))
        queued = await harness.start("s")
        harness.now += _seconds(5) - _MOMENT
        await harness.sweep()
        assert (await harness.get(claim.inference)).state is then
        harness.now += _MOMENT
        await harness.sweep()
        expired = await harness.get(claim.inference)
        assert (expired.state, expired.end_time) == (InferenceState.FAILED, harness.now)
        assert expired.error is not None
        assert expired.error.reason == "DEADLINE_EXCEEDED"
        closed, finished = (await harness.payloads("s"))[-2:]
        assert (closed, type(finished)) == (TurnClosed(0, 2), InferenceFinished)
        turn = await harness.full("s", 0)
        assert (turn.state, texts(turn)) == (TurnState.CLOSED, ["hi", "done so far"])
        assert (await harness.claim()).inference.inference_id == queued.inference_id

    async def test_what_runs_is_taken_from_its_owner_when_it_is_overdue(self, harness: Harness) -> None:
        await harness.session("s")
        claim = await harness.running("s", timeout=_seconds(5))
        harness.now += _seconds(5) + _OVERDUE - _MOMENT
        await harness.sweep()
        await harness.store.append(claim.lease, 0, harness.deltas(claim, "still here"))
        await harness.again(claim)  # it still has it
        before = await harness.everything()
        harness.now += 2 * _MOMENT
        await harness.sweep()
        assert await harness.everything() == before  # it is RUNNING, and no event tells of it
        assert (await harness.store.heartbeat("me")).running == ()
        with pytest.raises(Fenced):
            await harness.store.append(claim.lease, 1, harness.deltas(claim, "x"))
        await harness.store.register("you")
        lost = await harness.claim("you")
        assert (lost.is_lost, lost.position, lost.inference.attempt) == (True, 1, 0)
        await harness.finish(lost, 1)

    async def test_what_runs_without_a_deadline_is_left_alone(self, harness: Harness) -> None:
        await harness.session("s")
        claim = await harness.running("s")
        harness.now += timedelta(days=1000)
        await harness.sweep()
        await harness.finish(claim, 0)

    async def test_a_deadline_counts_from_the_start(self, harness: Harness) -> None:
        await harness.session("s")
        inference = await harness.start("s", timeout=_seconds(5))
        harness.now += _seconds(3)
        claim = await harness.claim()
        harness.now += _seconds(1)
        await harness.store.hand_back(claim.lease, 0, is_loss=True)
        assert (await harness.get(inference)).deadline_time == inference.deadline_time
        harness.now += _seconds(1)
        await harness.sweep()
        assert (await harness.get(inference)).state is InferenceState.FAILED

    async def test_everything_that_is_due_is_done_in_the_end(self, harness: Harness) -> None:
        for number in range(30):
            await harness.session(f"s{number}")
            for _ in range(10):
                await harness.start(f"s{number}", timeout=_seconds(1))
        harness.now += _seconds(2)
        await harness.sweep()
        assert await harness.claims() == ()
        for number in range(30):
            listed = await harness.store.list_inferences("local", f"s{number}", (), 99, None)
            assert {inference.state for inference in listed.items} == {InferenceState.FAILED}
        assert not await harness.store.sweep(harness.now)

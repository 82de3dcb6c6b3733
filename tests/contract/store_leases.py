"""What every store promises of the writing under a lease: fencing, appending, finishing, taking over."""

from dataclasses import replace
from datetime import timedelta

import pytest

from contract.store_harness import DONE, Harness, gather, llm, texts, user
from turnwire_server.domain.errors import EngineFailedError
from turnwire_server.domain.event import (
    Cancelled,
    Failed,
    InferenceFinished,
    InferenceStarted,
    LlmDelta,
    Succeeded,
    TurnClosed,
    TurnOpened,
)
from turnwire_server.domain.inference import FinishClass, InferenceState, Usage
from turnwire_server.domain.turn import TurnState
from turnwire_server.stores.base import Claim, Ending, Fenced, Running


class LeasePromises:
    """Writing under a lease."""

    async def test_a_claim_begins_the_attempt_and_opens_the_turn(self, harness: Harness) -> None:
        await harness.session("s")
        harness.now += timedelta(seconds=1)
        claim = await harness.running("s", user("a"), user("b"))
        inference = claim.inference
        assert (inference.state, inference.start_time) == (InferenceState.RUNNING, harness.now)
        assert (inference.turn_index, inference.queue_position, inference.attempt) == (0, None, 0)
        assert (inference.first_sequence, inference.last_sequence) == (1, 3)
        _, started, opened = await harness.payloads("s")
        assert started == InferenceStarted("scripted", "default", "m1")
        assert opened == TurnOpened(0, 2, None)
        assert await harness.store.get_inference("local", inference.inference_id) == inference
        assert (await harness.chunks("s"))[-1].state is InferenceState.RUNNING

    async def test_appends_go_on_from_their_position(self, harness: Harness) -> None:
        await harness.session("s")
        claim = await harness.running("s")
        await harness.store.append(claim.lease, 0, harness.deltas(claim, "a", "b"))
        await harness.store.append(claim.lease, 2, harness.deltas(claim, "c"))
        assert (await harness.payloads("s"))[3:] == [LlmDelta("a", 0), LlmDelta("b", 0), LlmDelta("c", 0)]
        inference = await harness.store.get_inference("local", claim.inference.inference_id)
        assert inference.last_sequence == 6
        [taken] = await harness.store.reap("you")
        assert taken.position == 3

    async def test_sending_again_is_harmless(self, harness: Harness) -> None:
        await harness.session("s")
        claim = await harness.running("s")
        for _ in range(3):
            await harness.store.append(claim.lease, 0, harness.deltas(claim, "a", "b"))
        assert len(await harness.events("s")) == 5
        ending = Ending(DONE, blocks=(llm("ab"),), events=tuple(harness.deltas(claim, "c")))
        first = await harness.store.finish(claim.lease, 2, ending)
        assert await harness.store.finish(claim.lease, 2, ending) == first
        assert len(await harness.events("s")) == 8

    async def test_a_wrong_token_or_position_is_fenced(self, harness: Harness) -> None:
        await harness.session("s")
        claim = await harness.running("s")
        await harness.store.append(claim.lease, 0, harness.deltas(claim, "a", "b", "c"))
        head = await harness.events("s")
        forged = replace(claim.lease, token="forged")
        elsewhere = replace(claim.lease, inference_id="nothing")
        for lease, position in ((forged, 3), (elsewhere, 3), (claim.lease, 4), (claim.lease, 0), (claim.lease, 1)):
            with pytest.raises(Fenced):
                await harness.store.append(lease, position, harness.deltas(claim, "x"))
            with pytest.raises(Fenced):
                await harness.store.finish(lease, position, Ending(DONE))
        assert await harness.events("s") == head

    async def test_what_is_queued_or_has_ended_is_fenced(self, harness: Harness) -> None:
        await harness.session("s")
        inference = await harness.start("s")
        claim = await harness.claim()
        no_lease = replace(claim.lease, inference_id=inference.inference_id, token="")
        with pytest.raises(Fenced):
            await harness.store.append(no_lease, 0, harness.deltas(claim, "x"))
        await harness.finish(claim, 0)
        for position in (0, 1):
            with pytest.raises(Fenced):
                await harness.store.append(claim.lease, position, harness.deltas(claim, "x"))
        with pytest.raises(Fenced):
            await harness.finish(claim, 1)

    async def test_one_fenced_call_does_not_hurt_its_neighbours(self, harness: Harness) -> None:
        claims: list[Claim] = []
        for number in range(10):
            await harness.session(f"s{number}")
            claims.append(await harness.running(f"s{number}"))
        outcomes = await gather(
            *(
                harness.store.append(claim.lease, number % 2, harness.deltas(claim, "x"))
                for number, claim in enumerate(claims)
            )
        )
        assert [isinstance(outcome, Fenced) for outcome in outcomes] == [False, True] * 5
        for number in range(10):
            assert len(await harness.events(f"s{number}")) == (4 if number % 2 == 0 else 3)

    async def test_finish_tells_the_end(self, harness: Harness) -> None:
        await harness.session("s")
        claim = await harness.running("s", user("a"))
        await harness.store.append(claim.lease, 0, harness.deltas(claim, "x"))
        harness.now += timedelta(seconds=2)
        usage = Usage(1, 2, 3, 4)
        ending = Ending(DONE, usage, "real-model", (llm("x"), llm("y")), tuple(harness.deltas(claim, "y")))
        ended = await harness.store.finish(claim.lease, 1, ending)
        assert (ended.state, ended.finish_class) == (InferenceState.SUCCEEDED, FinishClass.COMPLETED)
        assert (ended.usage, ended.model, ended.end_time, ended.error) == (usage, "real-model", harness.now, None)
        payloads = await harness.payloads("s")
        assert payloads[-3:] == [LlmDelta("y", 0), TurnClosed(0, 3), InferenceFinished(DONE, usage, len(payloads))]
        assert ended.last_sequence == len(payloads) == 7
        assert await harness.store.get_inference("local", ended.inference_id) == ended
        turn = await harness.full("s", 0)
        assert (turn.state, turn.close_time, turn.block_count) == (TurnState.CLOSED, harness.now, 3)
        assert (await harness.chunks("s"))[-1].state is InferenceState.SUCCEEDED

    async def test_a_failure_and_a_cancel_are_told(self, harness: Harness) -> None:
        await harness.session("s")
        failure = EngineFailedError(engine="scripted").failure()
        failed = await harness.finish(await harness.running("s"), 0, outcome=Failed(failure))
        assert (failed.state, failed.finish_class, failed.error) == (InferenceState.FAILED, FinishClass.ERROR, failure)
        claim = await harness.running("s")
        await harness.store.request_cancel("local", claim.inference.inference_id, "enough", is_session=False)
        cancelled = await harness.finish(claim, 0, outcome=Cancelled())
        assert (cancelled.state, cancelled.finish_class) == (InferenceState.CANCELLED, FinishClass.INTERRUPTED)
        finished = (await harness.payloads("s"))[-1]
        assert isinstance(finished, InferenceFinished)
        assert finished.outcome == Cancelled("enough")
        assert finished.event_count == 5

    async def test_event_counts_are_those_of_the_inference(self, harness: Harness) -> None:
        await harness.session("s")
        first = await harness.running("s")
        await harness.start("s")  # an event of another inference in between
        await harness.store.append(first.lease, 0, harness.deltas(first, "a", "b"))
        await harness.finish(first, 2)
        finished = (await harness.payloads("s"))[-1]
        assert isinstance(finished, InferenceFinished)
        assert finished.event_count == 7
        assert finished.outcome == Succeeded(FinishClass.COMPLETED)

    async def test_only_one_of_two_ends_happens(self, harness: Harness) -> None:
        await harness.session("s")
        claim = await harness.running("s")
        [taken] = await harness.store.reap("you")
        outcomes = await gather(harness.finish(claim, 0), harness.finish(taken, 0, outcome=Cancelled()))
        assert isinstance(outcomes[0], Fenced)
        assert not isinstance(outcomes[1], Exception)
        ends = [payload for payload in await harness.payloads("s") if isinstance(payload, InferenceFinished)]
        assert len(ends) == 1

    async def test_reap_takes_over_what_others_run(self, harness: Harness) -> None:
        for session_id in ("a", "b"):
            await harness.session(session_id)
        lost = await harness.running("a")
        await harness.store.append(lost.lease, 0, harness.deltas(lost, "x", "y"))
        await harness.start("b")
        mine = await harness.claim("new")
        head = await harness.events("a")
        [taken] = await harness.store.reap("new")
        assert taken.inference == replace(lost.inference, last_sequence=5)
        assert (taken.position, taken.engine, taken.overrides) == (2, lost.engine, lost.overrides)
        assert taken.lease.token != lost.lease.token
        assert await harness.events("a") == head
        with pytest.raises(Fenced):
            await harness.store.append(lost.lease, 2, harness.deltas(lost, "z"))
        await harness.store.append(taken.lease, 2, harness.deltas(taken, "z"))
        assert await harness.store.reap("new") == ()
        assert await harness.store.heartbeat("me") == ()
        owned = await harness.store.heartbeat("new")
        assert set(owned) == {Running(claim.inference.inference_id, False) for claim in (taken, mine)}

    async def test_reap_takes_over_what_its_owner_lost_track_of(self, harness: Harness) -> None:
        claims: list[Claim] = []
        for session_id in ("lost", "kept", "ended"):
            await harness.session(session_id)
            claims.append(await harness.running(session_id))
        lost, kept, ended = claims
        await harness.store.append(lost.lease, 0, harness.deltas(lost, "x"))
        await harness.finish(ended, 0)
        waiting = await harness.start("kept")
        await harness.session("theirs")
        await harness.start("theirs")
        theirs = await harness.claim("other")
        named = [claim.inference.inference_id for claim in (lost, ended, theirs)]
        taken = await harness.store.reap("me", [*named, waiting.inference_id, "nothing"])
        assert [claim.inference.session_id for claim in taken] == ["lost", "theirs"]
        assert taken[0] == replace(
            lost, lease=taken[0].lease, position=1, inference=replace(lost.inference, last_sequence=4)
        )
        for old in (lost, theirs):
            with pytest.raises(Fenced):
                await harness.finish(old, 1)
        await harness.finish(taken[0], 1)
        await harness.finish(kept, 0)
        assert await harness.store.heartbeat("me") == (Running(theirs.inference.inference_id, False),)

    async def test_a_heartbeat_tells_what_runs_and_what_is_to_be_cancelled(self, harness: Harness) -> None:
        claims: list[Claim] = []
        for session_id in ("a", "b", "c"):
            await harness.session(session_id)
            claims.append(await harness.running(session_id))
        await harness.start("a")
        ids = [claim.inference.inference_id for claim in claims]
        assert set(await harness.store.heartbeat("me")) == {Running(each, False) for each in ids}
        await harness.store.request_cancel("local", ids[0], "", is_session=False)
        await harness.finish(claims[2], 0)
        assert set(await harness.store.heartbeat("me")) == {Running(ids[0], True), Running(ids[1], False)}
        assert await harness.store.heartbeat("you") == ()
        await harness.store.reap("you")
        assert Running(ids[0], True) in await harness.store.heartbeat("you")

    @pytest.mark.parametrize(
        "broken",
        [
            Ending(DONE, model="\ud800"),
            Ending(DONE, blocks=(llm("fine"), llm("\ud800"))),
            Ending(Failed(replace(EngineFailedError(engine="e").failure(), message="\ud800"))),
        ],
        ids=["model", "block", "error"],
    )
    async def test_an_ending_that_cannot_be_encoded_changes_nothing(self, harness: Harness, broken: Ending) -> None:
        await harness.session("s")
        claim = await harness.running("s", user("q"))
        session, events = await harness.store.get_session("local", "s"), await harness.events("s")
        broken = replace(broken, events=tuple(harness.deltas(claim, "x")))
        with pytest.raises(UnicodeEncodeError):
            await harness.store.finish(claim.lease, 0, broken)
        assert await harness.store.get_inference("local", claim.inference.inference_id) == claim.inference
        assert await harness.store.get_session("local", "s") == session
        assert await harness.events("s") == events
        turn = await harness.full("s", 0)
        assert (turn.state, texts(turn)) == (TurnState.OPEN, ["q"])
        ended = await harness.finish(claim, 0, llm("a"), events=broken.events)
        assert (ended.state, ended.last_sequence) == (InferenceState.SUCCEEDED, session.head_sequence + 3)
        assert texts(await harness.full("s", 0)) == ["q", "a"]

    async def test_what_belonged_to_a_deleted_session_is_fenced(self, harness: Harness) -> None:
        for session_id in ("runs", "ended"):
            await harness.session(session_id)
        runs = await harness.running("runs")
        await harness.store.append(runs.lease, 0, harness.deltas(runs, "x"))
        ended = await harness.running("ended")
        await harness.finish(ended, 0)
        for session_id in ("runs", "ended"):
            await harness.store.delete_session("local", session_id, None, force=True)
            await harness.session(session_id)
        for claim, position in ((runs, 0), (runs, 1), (ended, 0)):
            with pytest.raises(Fenced):
                await harness.store.append(claim.lease, position, harness.deltas(claim, "x"))
            with pytest.raises(Fenced):
                await harness.finish(claim, position)
        assert await harness.events("runs") == []
        assert await harness.store.reap("you", [runs.inference.inference_id]) == ()

    async def test_tokens_are_never_the_same(self, harness: Harness) -> None:
        await harness.session("s")
        tokens = {(await harness.running("s")).lease.token}
        for owner in ("a", "b", "c"):
            [claim] = await harness.store.reap(owner)
            tokens.add(claim.lease.token)
        assert len(tokens) == 4

"""What every store promises of claiming, and of appending to and finishing what was claimed."""

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
from turnwire_server.stores.lease import Claim, Ending, Fenced


class ClaimPromises:
    """Claiming what may run."""

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
        assert await harness.get(inference) == inference
        assert (await harness.chunks("s"))[-1].state is InferenceState.RUNNING

    async def test_a_first_claim_goes_on_from_nothing(self, harness: Harness) -> None:
        await harness.session("s")
        inference = await harness.start("s")
        [claim] = await harness.store.claim("me", ["t"])
        assert (claim.lease.principal, claim.lease.inference_id) == ("local", inference.inference_id)
        assert claim.lease.token == "t"
        assert (claim.position, claim.step, claim.holds_through) == (0, 0, 3)
        assert (claim.checkpoint, claim.effects, claim.is_lost) == (b"", (), False)

    async def test_at_most_one_inference_per_token(self, harness: Harness) -> None:
        for session_id in "abc":
            await harness.session(session_id)
            await harness.start(session_id)
        assert await harness.store.claim("me", []) == ()
        first = await harness.store.claim("me", ["t1", "t2"])
        assert [claim.inference.session_id for claim in first] == ["a", "b"]
        assert {claim.lease.token for claim in first} == {"t1", "t2"}
        [last] = await harness.store.claim("me", ["t3", "t4", "t5"])
        assert (last.inference.session_id, last.lease.token in {"t3", "t4", "t5"}) == ("c", True)
        assert await harness.claims() == ()

    async def test_tokens_sent_again_come_first(self, harness: Harness) -> None:
        for session_id in "abcd":
            await harness.session(session_id)
        await harness.start("b")
        await harness.start("c")
        first = await harness.store.claim("me", ["t1", "t2"])
        await harness.start("a")
        await harness.start("d")
        again = await harness.store.claim("me", ["t3", "t2", "t1"])
        assert set(again[:2]) == set(first)
        assert [claim.inference.session_id for claim in again[2:]] == ["a"]
        assert [claim.lease.token for claim in again[2:]] == ["t3"]
        assert await harness.store.claim("me", ["t1"]) == tuple(claim for claim in first if claim.lease.token == "t1")

    async def test_a_claim_sent_again_is_as_it_is_now(self, harness: Harness) -> None:
        await harness.session("s")
        claim = await harness.running("s")
        await harness.store.append(claim.lease, 0, harness.deltas(claim, "a", "b"))
        await harness.cancel(claim.inference, "stop")
        now = await harness.get(claim.inference)
        assert await harness.again(claim) == replace(claim, inference=now, position=2)
        assert (now.cancel_reason, now.last_sequence) == ("stop", 5)

    async def test_nobody_gets_what_another_one_has(self, harness: Harness) -> None:
        await harness.store.register("you")
        for session_id in "abcdefgh":
            await harness.session(session_id)
            await harness.start(session_id)
        pages = await gather(*(harness.claims(owner, 2) for owner in ("me", "you") * 3))
        claims = [claim for page in pages if not isinstance(page, BaseException) for claim in page]
        assert sorted(claim.inference.session_id for claim in claims) == list("abcdefgh")
        assert len({claim.lease.token for claim in claims}) == 8


class AppendPromises:
    """Appending under a lease."""

    async def test_appends_go_on_from_their_position(self, harness: Harness) -> None:
        await harness.session("s")
        claim = await harness.running("s")
        await harness.store.append(claim.lease, 0, harness.deltas(claim, "a", "b"))
        await harness.store.append(claim.lease, 2, harness.deltas(claim, "c"))
        assert (await harness.payloads("s"))[3:] == [LlmDelta("a", 0), LlmDelta("b", 0), LlmDelta("c", 0)]
        assert (await harness.get(claim.inference)).last_sequence == 6
        assert (await harness.again(claim)).position == 3

    async def test_an_append_of_nothing_appends_nothing(self, harness: Harness) -> None:
        await harness.session("s")
        claim = await harness.running("s")
        before, commits = await harness.everything(), len(harness.commits)
        await harness.store.append(claim.lease, 0, [])
        assert await harness.everything() == before
        assert not [chunk for commit in harness.commits[commits:] for chunk in commit.chunks]

    async def test_one_fenced_call_does_not_hurt_its_neighbours(self, harness: Harness) -> None:
        claims: list[Claim] = []
        for number in range(10):
            await harness.session(f"s{number}")
            claims.append(await harness.running(f"s{number}"))
        results = await gather(
            *(
                harness.store.append(claim.lease, number % 2, harness.deltas(claim, "x"))
                for number, claim in enumerate(claims)
            )
        )
        assert [isinstance(result, Fenced) for result in results] == [False, True] * 5
        for number in range(10):
            assert len(await harness.events(f"s{number}")) == (4 if number % 2 == 0 else 3)


class FinishPromises:
    """Ending what runs."""

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
        assert await harness.get(ended) == ended
        turn = await harness.full("s", 0)
        assert (turn.state, turn.close_time, turn.block_count) == (TurnState.CLOSED, harness.now, 3)
        assert (await harness.chunks("s"))[-1].state is InferenceState.SUCCEEDED

    async def test_a_failure_and_a_cancel_are_told(self, harness: Harness) -> None:
        await harness.session("s")
        failure = EngineFailedError(engine="scripted").failure()
        failed = await harness.finish(await harness.running("s"), 0, outcome=Failed(failure))
        assert (failed.state, failed.finish_class, failed.error) == (InferenceState.FAILED, FinishClass.ERROR, failure)
        claim = await harness.running("s")
        await harness.cancel(claim.inference, "enough")
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
        await harness.lose(claim)
        taken = await harness.claim()
        results = await gather(harness.finish(claim, 0), harness.finish(taken, 0, outcome=Cancelled()))
        assert isinstance(results[0], Fenced)
        assert not isinstance(results[1], Exception)
        ends = [payload for payload in await harness.payloads("s") if isinstance(payload, InferenceFinished)]
        assert len(ends) == 1

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
        before = await harness.everything()
        broken = replace(broken, events=tuple(harness.deltas(claim, "x")))
        with pytest.raises(UnicodeEncodeError):
            await harness.store.finish(claim.lease, 0, broken)
        assert await harness.everything() == before
        assert await harness.again(claim) == claim
        ended = await harness.finish(claim, 0, llm("a"), events=broken.events)
        assert (ended.state, ended.last_sequence) == (InferenceState.SUCCEEDED, claim.inference.last_sequence + 3)
        assert texts(await harness.full("s", 0)) == ["q", "a"]

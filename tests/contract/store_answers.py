"""What every store promises of answers that end their inference, and of those that have an idempotency key."""

from datetime import timedelta

import pytest

from contract.store_harness import WAITS, Harness, answer, gather, llm, marks, texts
from turnwire_server.domain.errors import (
    IdempotencyKeyReusedError,
    InferenceNotFoundError,
    InferenceNotWaitingError,
    StepAbortedError,
    ToolCallNotPendingError,
)
from turnwire_server.domain.event import Cancelled, Failed, InferenceFinished, LlmDelta, Outcome, Succeeded, TurnClosed
from turnwire_server.domain.inference import FinishClass, IllegalTransition, Inference, InferenceState
from turnwire_server.domain.turn import TurnState
from turnwire_server.stores.base import Amendment, Waiting
from turnwire_server.stores.lease import Claim, Fenced, Step
from turnwire_server.stores.start import Idempotency

ABORTED = Failed(StepAbortedError(pause="p").failure())
BROKEN = Failed(StepAbortedError(pause="\ud800").failure())


def _never(_: Waiting) -> Amendment:
    raise AssertionError


def _guard(name: str, fingerprint: bytes = b"same") -> Idempotency:
    return Idempotency("SubmitToolResults", name, fingerprint)


class AnswerPromises:
    """Answers that end what waits."""

    @pytest.mark.parametrize("outcome", [ABORTED, Cancelled()], ids=["failed", "cancelled"])
    @pytest.mark.parametrize("then", WAITS)
    async def test_an_answer_may_end_what_waits(self, harness: Harness, then: InferenceState, outcome: Outcome) -> None:
        await harness.session("s", ttl=timedelta(hours=1))
        claim = await harness.leaseless("s", then, llm("a"))
        queued = await harness.start("s")
        head = (await harness.store.get_session("local", "s")).head_sequence
        harness.now += timedelta(seconds=1)
        events = tuple(harness.deltas(claim, "x", "y"))
        ended = await harness.amend(claim, lambda _: Amendment(b"two", events, outcome=outcome))
        assert ended.state is (InferenceState.FAILED if outcome == ABORTED else InferenceState.CANCELLED)
        assert (ended.end_time, ended.last_sequence) == (harness.now, head + 4)
        assert await harness.get(ended) == ended
        *told, closed, finished = (await harness.payloads("s"))[head:]
        assert (told, closed) == ([LlmDelta("x", 0), LlmDelta("y", 0)], TurnClosed(0, 2))
        assert isinstance(finished, InferenceFinished)
        assert finished.outcome == outcome
        chunk = (await harness.chunks("s"))[-1]
        assert (chunk.state, chunk.last_sequence) == (ended.state, ended.last_sequence)
        turn = await harness.full("s", 0)
        assert (turn.state, texts(turn)) == (TurnState.CLOSED, ["hi", "a"])
        session = await harness.store.get_session("local", "s")
        assert (session.active, session.expire_time) == (None, harness.now + timedelta(hours=1))
        assert (await harness.claim()).inference.inference_id == queued.inference_id

    async def test_the_blocks_of_an_answer_are_in_the_turn_at_once(self, harness: Harness) -> None:
        await harness.session("s")
        claim = await harness.waiting("s", llm("a"))
        part = Amendment(b"", blocks=(llm("b"), llm("c")), is_released=False)
        for _ in range(2):
            await harness.store.amend("local", claim.inference.inference_id, "part", lambda _: part)
        turn = await harness.full("s", 0)
        assert (turn.state, texts(turn), turn.given_block_count) == (TurnState.OPEN, ["hi", "a", "b", "c"], 1)
        assert len({*(block.id for block in turn.blocks), ""}) == 5
        await harness.amend(claim, lambda _: Amendment(b"", blocks=(llm("d"),)))
        following = await harness.claim()
        events = tuple(harness.deltas(following, "x"))
        step = Step(2, (llm("e"),), events=events, then=WAITS[0], marks=marks(harness, 5, 6))
        await harness.store.commit_step(following.lease, 1, step)
        await harness.amend(claim, lambda _: Amendment(b"", blocks=(llm("f"),), outcome=ABORTED))
        turn = await harness.full("s", 0)
        assert (turn.state, texts(turn)) == (TurnState.CLOSED, ["hi", "a", "b", "c", "d", "e", "f"])
        assert [type(payload) for payload in (await harness.payloads("s"))[-2:]] == [TurnClosed, InferenceFinished]
        assert TurnClosed(0, 7) in await harness.payloads("s")
        assert [each.turn.block_count for each in await harness.snapshots(claim.inference)] == [5, 6, 7]

    @pytest.mark.parametrize("outcome", [None, ABORTED], ids=["released", "ended"])
    async def test_blocks_that_cannot_be_encoded_change_nothing(
        self, harness: Harness, outcome: Outcome | None
    ) -> None:
        await harness.session("s")
        claim = await harness.waiting("s")
        before, waiting = await harness.everything(), await harness.look(claim)
        broken = Amendment(b"two", blocks=(llm("fine"), llm("\ud800")), outcome=outcome)
        with pytest.raises(UnicodeEncodeError):
            await harness.amend(claim, lambda _: broken)
        assert await harness.everything() == before
        assert await harness.look(claim) == waiting

    async def test_what_an_answer_ended_takes_nothing_more(self, harness: Harness) -> None:
        await harness.session("s")
        claim = await harness.waiting("s")
        ended = await harness.amend(claim, answer(outcome=ABORTED))
        before = await harness.everything()
        with pytest.raises(InferenceNotWaitingError):
            await harness.amend(claim, _never)
        with pytest.raises(Fenced):
            await harness.store.append(claim.lease, 1, harness.deltas(claim, "x"))
        assert await harness.cancel(ended) == ended
        assert await harness.everything() == before

    async def test_an_answer_ends_what_it_does_not_release(self, harness: Harness) -> None:
        await harness.session("s")
        claim = await harness.waiting("s")
        ended = await harness.amend(claim, answer(is_released=False, outcome=ABORTED))
        assert (ended.state, ended.error) == (InferenceState.FAILED, ABORTED.error)

    @pytest.mark.parametrize("broken", [Succeeded(FinishClass.COMPLETED), BROKEN], ids=["illegal", "not encodable"])
    async def test_an_end_that_cannot_be_changes_nothing(self, harness: Harness, broken: Outcome) -> None:
        await harness.session("s")
        claim = await harness.waiting("s", wake_time=harness.now)
        before, waiting = await harness.everything(), await harness.look(claim)
        events = tuple(harness.deltas(claim, "x"))
        amendment = Amendment(b"two", events, (llm("b"),), outcome=broken)
        with pytest.raises((IllegalTransition, UnicodeEncodeError)):
            await harness.store.amend("local", claim.inference.inference_id, "token", lambda _: amendment, _guard("k"))
        assert await harness.everything() == before
        assert await harness.look(claim) == waiting
        ended = await _answer(harness, claim, _guard("k"), outcome=ABORTED)
        assert ended.state is InferenceState.FAILED


class AnswerKeyPromises:
    """Answers with an idempotency key."""

    async def test_a_repeat_returns_the_inference_as_it_is_now(self, harness: Harness) -> None:
        await harness.session("s")
        claim = await harness.waiting("s")
        for number, is_released in enumerate((False, True)):
            await _answer(harness, claim, _guard(f"{number}"), is_released=is_released)
            await _check_taken(harness, claim, number + 1)
        following = await harness.claim()
        await _check_taken(harness, claim, 2)
        await harness.store.hand_back(following.lease, 1, is_loss=False)
        await _check_taken(harness, claim, 2)
        await harness.finish(await harness.claim(), 1)
        await _check_taken(harness, claim, 2)
        harness.now += timedelta(days=30)  # a key lives as long as its session
        await harness.sweep()
        await _check_taken(harness, claim, 2)

    async def test_a_repeat_does_not_answer_what_waits_again(self, harness: Harness) -> None:
        await harness.session("s")
        claim = await harness.waiting("s")
        await _answer(harness, claim, _guard("0"), is_released=False)
        await _check_taken(harness, claim, 1)
        waiting = await harness.look(claim)
        assert (waiting.inference.state, waiting.checkpoint) == (WAITS[0], b"answered")
        ended = await _answer(harness, claim, _guard("1"), outcome=ABORTED)
        assert ended.state is InferenceState.FAILED
        await _check_taken(harness, claim, 2)

    async def test_of_two_at_once_with_one_key_one_is_taken(self, harness: Harness) -> None:
        await harness.session("s")
        claim = await harness.waiting("s")
        results = await gather(*(_answer(harness, claim, _guard("k")) for _ in range(5)))
        assert results == [await harness.get(claim.inference)] * 5
        others = await gather(*(_answer(harness, claim, _guard(f"k{number}")) for number in range(3)))
        assert [type(other) for other in others] == [InferenceNotWaitingError] * 3

    async def test_another_answer_with_the_same_key_is_refused(self, harness: Harness) -> None:
        await harness.session("s")
        claim = await harness.waiting("s")
        for is_released in (False, True):
            await _answer(harness, claim, _guard(f"{is_released}"), is_released=is_released)
            before = await harness.everything()
            with pytest.raises(IdempotencyKeyReusedError) as caught:
                await _answer(harness, claim, _guard(f"{is_released}", b"other"))
            assert caught.value.metadata == {"rpc": "SubmitToolResults"}
            assert await harness.everything() == before

    async def test_an_answer_that_is_refused_leaves_its_key_free(self, harness: Harness) -> None:
        def refuse(_: Waiting) -> Amendment:
            raise ToolCallNotPendingError(inference_id="i", tool_calls="c")

        await harness.session("s")
        claim = await harness.running("s")
        inference_id = claim.inference.inference_id
        with pytest.raises(InferenceNotWaitingError):
            await _answer(harness, claim, _guard("k"))
        await harness.finish(claim, 0)
        claim = await harness.waiting("s")
        with pytest.raises(ToolCallNotPendingError):
            await harness.store.amend("local", claim.inference.inference_id, "t", refuse, _guard("k", b"refused"))
        for principal, nothing in (("local", "nothing"), ("other", inference_id)):
            with pytest.raises(InferenceNotFoundError):
                await harness.store.amend(principal, nothing, "t", _never, _guard("k"))
        released = await _answer(harness, claim, _guard("k", b"taken"))
        assert released.state is InferenceState.QUEUED
        assert await _answer(harness, claim, _guard("k", b"taken")) == released

    async def test_keys_are_those_of_one_principal_and_one_rpc(self, harness: Harness) -> None:
        await harness.session("s")
        await harness.start("s", idempotency=Idempotency("StartInference", "k", b"start"))
        await harness.finish(await harness.claim(), 0)
        claim = await harness.waiting("s")
        await harness.session("s", principal="other")
        theirs = await harness.waiting("s", principal="other")
        assert (await _answer(harness, claim, _guard("k"))).state is InferenceState.QUEUED
        taken = await harness.store.amend(
            "other", theirs.inference.inference_id, harness.mint(), answer(), _guard("k", b"theirs")
        )
        assert taken.state is InferenceState.QUEUED

    async def test_what_was_deleted_is_not_found_by_its_key(self, harness: Harness) -> None:
        await harness.session("s")
        claim = await harness.waiting("s")
        await _answer(harness, claim, _guard("k"))
        await harness.delete("s", force=True)
        for guard in (_guard("k"), _guard("k", b"other")):
            with pytest.raises(InferenceNotFoundError):
                await _answer(harness, claim, guard)
        await harness.session("s")
        other = await harness.waiting("s")
        with pytest.raises(IdempotencyKeyReusedError):  # the key outlives its session
            await _answer(harness, other, _guard("k", b"other"))
        harness.now += timedelta(hours=24, seconds=1)
        await harness.sweep()
        assert (await _answer(harness, other, _guard("k", b"other"))).state is InferenceState.QUEUED


async def _answer(
    harness: Harness,
    claim: Claim,
    guard: Idempotency,
    *,
    is_released: bool = True,
    outcome: Outcome | None = None,
) -> Inference:
    decide = answer(is_released=is_released, outcome=outcome)
    return await harness.store.amend("local", claim.inference.inference_id, harness.mint(), decide, guard)


async def _check_taken(harness: Harness, claim: Claim, keys: int) -> None:
    before, inference_id = await harness.everything(), claim.inference.inference_id
    for number in range(keys):
        now = await harness.store.get_inference("local", inference_id)
        again = await harness.store.amend("local", inference_id, harness.mint(), _never, _guard(f"{number}"))
        assert again == now
    assert await harness.everything() == before

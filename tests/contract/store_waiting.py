"""What every store promises of inferences that wait for their client, and of the answers that they get."""

import pytest

from contract.store_harness import Harness, answer, gather, llm, texts, user
from turnwire_server.domain.errors import InferenceNotFoundError, InferenceNotWaitingError, ToolCallNotPendingError
from turnwire_server.domain.event import InferenceFinished, InferenceQueued, InferenceStarted, LlmDelta
from turnwire_server.domain.inference import Inference, InferenceState
from turnwire_server.stores.base import Amendment, Waiting
from turnwire_server.stores.lease import Claim, Effect, Fenced, Step

WAITS = (InferenceState.WAITING_FOR_TOOLS, InferenceState.PAUSED)


def _never(_: Waiting) -> Amendment:
    raise AssertionError


class WaitingPromises:
    """Waiting, and being released."""

    @pytest.mark.parametrize("then", WAITS)
    async def test_an_answer_is_decided_on_what_waits(self, harness: Harness, then: InferenceState) -> None:
        await harness.session("s")
        claim = await harness.running("s")
        await harness.store.record_effects(claim.lease, 0, [Effect("settled"), Effect("open")])
        await harness.store.record_effects(claim.lease, 0, [Effect("settled", b"x")])
        step = Step(1, events=tuple(harness.deltas(claim, "a")), checkpoint=b"one", then=then)
        inference = await harness.store.commit_step(claim.lease, 0, step)
        assert await harness.look(claim) == Waiting(inference, b"one")

    @pytest.mark.parametrize("then", WAITS)
    async def test_what_is_released_is_first_in_line(self, harness: Harness, then: InferenceState) -> None:
        await harness.session("s")
        claim = await harness.leaseless("s", then)
        other = await harness.start("s")
        events = tuple(harness.deltas(claim, "x", "y"))
        released = await harness.amend(claim, lambda _: Amendment(b"two", events=events))
        assert (released.state, released.is_active, released.queue_position) == (InferenceState.QUEUED, True, 1)
        assert (released.attempt, released.turn_index) == (0, 0)
        assert await harness.get(released) == released
        assert (await harness.get(other)).queue_position == 2
        payloads = await harness.payloads("s")
        assert payloads[-3:] == [LlmDelta("x", 0), LlmDelta("y", 0), InferenceQueued(1)]
        chunk = (await harness.chunks("s"))[-1]
        assert (chunk.state, chunk.last_sequence) == (InferenceState.QUEUED, released.last_sequence)
        assert (await harness.claim()).inference.inference_id == released.inference_id

    async def test_what_was_released_goes_on_from_the_answer(self, harness: Harness) -> None:
        await harness.session("s")
        claim = await harness.waiting("s", llm("a"))
        released = await harness.amend(claim, answer(b"two"))
        following = await harness.claim()
        assert (following.checkpoint, following.effects) == (b"two", ())
        assert (following.position, following.step, following.is_lost) == (1, 1, False)
        assert following.holds_through == released.last_sequence + 1
        assert following.inference.attempt == 0
        assert (await harness.payloads("s"))[-1] == InferenceStarted("scripted", "default", "m1")
        await harness.store.commit_step(following.lease, 1, Step(2, (llm("b"),)))
        await harness.finish(following, 1, llm("c"))
        assert texts(await harness.full("s", 0)) == ["hi", "a", "b", "c"]

    @pytest.mark.parametrize("then", WAITS)
    async def test_a_part_of_an_answer_releases_nothing(self, harness: Harness, then: InferenceState) -> None:
        await harness.session("s")
        claim = await harness.leaseless("s", then)
        before = await harness.get(claim.inference)
        assert await harness.amend(claim, answer(b"a", is_released=False)) == before
        assert await harness.look(claim) == Waiting(before, b"a")
        events = tuple(harness.deltas(claim, "told"))
        second = Amendment(b"b", events, is_released=False)
        told = await harness.amend(claim, lambda _: second)
        assert (told.state, told.last_sequence) == (then, before.last_sequence + 1)
        chunk = (await harness.chunks("s"))[-1]
        assert (chunk.state, chunk.last_sequence) == (None, told.last_sequence)
        assert await harness.look(claim) == Waiting(told, b"b")
        assert await harness.claims() == ()
        await harness.amend(claim)
        following = await harness.claim()
        assert (following.position, following.checkpoint) == (1, b"answered")

    async def test_what_is_not_waiting_takes_no_answer(self, harness: Harness) -> None:
        await harness.session("s")
        await harness.start("s")
        claim = await harness.claim()
        queued = await harness.start("s")
        await _check_refused(harness, queued)
        await _check_refused(harness, claim.inference)
        await _check_refused(harness, await harness.store.hand_back(claim.lease, 0, is_loss=False))
        claim = await harness.claim()
        await harness.store.commit_step(
            claim.lease, 0, Step(1, then=WAITS[0], events=tuple(harness.deltas(claim, "x")))
        )
        await _check_refused(harness, await harness.amend(claim))
        claim = await harness.claim()
        await _check_refused(harness, await harness.finish(claim, 1))

    async def test_an_answer_to_nothing(self, harness: Harness) -> None:
        await harness.session("s")
        claim = await harness.waiting("s")
        for principal, inference_id in (("local", "nothing"), ("other", claim.inference.inference_id)):
            with pytest.raises(InferenceNotFoundError):
                await harness.store.amend(principal, inference_id, harness.mint(), _never)

    async def test_an_answer_that_is_refused_changes_nothing(self, harness: Harness) -> None:
        def refuse(_: Waiting) -> Amendment:
            raise ToolCallNotPendingError(inference_id="i", tool_calls="c")

        await harness.session("s")
        claim = await harness.waiting("s")
        before, waiting = await harness.everything(), await harness.look(claim)
        inference_id = claim.inference.inference_id
        with pytest.raises(ToolCallNotPendingError):
            await harness.store.amend("local", inference_id, "t", refuse)
        assert await harness.everything() == before
        assert await harness.look(claim) == waiting
        # It did not happen, so its token was not used up.
        assert (await harness.store.amend("local", inference_id, "t", answer())).state is InferenceState.QUEUED

    async def test_of_two_answers_at_once_one_releases(self, harness: Harness) -> None:
        await harness.session("s")
        claim = await harness.waiting("s")
        results = await gather(*(harness.amend(claim) for _ in range(5)))
        assert sum(isinstance(result, Inference) for result in results) == 1
        assert sum(isinstance(result, InferenceNotWaitingError) for result in results) == 4

    async def test_an_answer_sent_again_is_taken_once(self, harness: Harness) -> None:
        await harness.session("s")
        claim = await harness.waiting("s")
        inference_id = claim.inference.inference_id
        part = Amendment(b"part", tuple(harness.deltas(claim, "x")), is_released=False)
        for _ in range(2):
            await harness.store.amend("local", inference_id, "t1", lambda _: part)
        assert (await harness.look(claim)).checkpoint == b"part"
        await harness.store.amend("local", inference_id, "t2", answer(b"rest"))
        await _check_taken(harness, inference_id, "t1", "t2")
        following = await harness.claim()
        assert following.checkpoint == b"rest"
        await _check_taken(harness, inference_id, "t1", "t2")
        # It waits again, for another answer than those.
        await harness.store.commit_step(following.lease, 1, _second(harness, following))
        await _check_taken(harness, inference_id, "t1", "t2")
        assert (await harness.look(claim)).checkpoint == b"second"
        await harness.store.amend("local", inference_id, "t3", answer())
        await harness.finish(await harness.claim(), 2)
        await _check_taken(harness, inference_id, "t1", "t2", "t3")

    @pytest.mark.parametrize("then", WAITS)
    async def test_what_is_to_be_cancelled_ends_instead_of_waiting(
        self, harness: Harness, then: InferenceState
    ) -> None:
        await harness.session("s")
        claim = await harness.running("s", user("q"))
        await harness.store.request_cancel("local", claim.inference.inference_id, "enough")
        step = Step(1, (llm("a"),), events=tuple(harness.deltas(claim, "a")), checkpoint=b"one", then=then)
        ended = await harness.store.commit_step(claim.lease, 0, step)
        assert (ended.state, ended.cancel_reason) == (InferenceState.CANCELLED, "enough")
        assert await harness.store.commit_step(claim.lease, 0, step) == ended
        assert texts(await harness.full("s", 0)) == ["q", "a"]
        assert (await harness.store.get_session("local", "s")).active is None

    @pytest.mark.parametrize("then", WAITS)
    async def test_a_step_sent_again_after_it_released_the_lease(self, harness: Harness, then: InferenceState) -> None:
        await harness.session("s")
        claim = await harness.running("s", user("q"))
        step = Step(1, (llm("a"),), events=tuple(harness.deltas(claim, "a")), checkpoint=b"one", then=then)
        waiting = await harness.store.commit_step(claim.lease, 0, step)
        assert await harness.store.commit_step(claim.lease, 0, step) == waiting
        released = await harness.amend(claim)
        assert await harness.store.commit_step(claim.lease, 0, step) == released
        following = await harness.claim()
        before = await harness.everything()
        with pytest.raises(Fenced):
            await harness.store.commit_step(claim.lease, 0, step)
        assert await harness.everything() == before
        assert await harness.again(following) == following
        assert texts(await harness.full("s", 0)) == ["q", "a"]

    async def test_a_session_is_busy_while_its_inference_waits(self, harness: Harness) -> None:
        await harness.session("s")
        claim = await harness.waiting("s")
        other = await harness.start("s")
        assert await harness.claims() == ()
        await harness.amend(claim)
        following = await harness.claim()
        await harness.finish(following, 1)
        ends = [event for event in await harness.events("s") if isinstance(event.payload, InferenceFinished)]
        assert [event.inference_id for event in ends] == [claim.inference.inference_id]
        assert (await harness.claim()).inference.inference_id == other.inference_id


def _second(harness: Harness, claim: Claim) -> Step:
    return Step(2, events=tuple(harness.deltas(claim, "waits")), checkpoint=b"second", then=WAITS[1])


async def _check_refused(harness: Harness, inference: Inference) -> None:
    before = await harness.everything()
    with pytest.raises(InferenceNotWaitingError) as caught:
        await harness.store.amend("local", inference.inference_id, harness.mint(), _never)
    state = (await harness.get(inference)).state
    assert caught.value.metadata == {"inference_id": inference.inference_id, "state": state.name}
    assert await harness.everything() == before


async def _check_taken(harness: Harness, inference_id: str, *tokens: str) -> None:
    before = await harness.everything()
    for token in tokens:
        now = await harness.store.get_inference("local", inference_id)
        assert await harness.store.amend("local", inference_id, token, _never) == now
    assert await harness.everything() == before

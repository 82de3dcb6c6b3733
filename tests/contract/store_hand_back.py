"""What every store promises of an inference that is handed back: it goes on where its last step was committed."""

import pytest

from contract.store_harness import DONE, Harness, by_call, llm, texts, user
from turnwire_server.domain.event import InferenceAttemptLost, InferenceFinished, InferenceStarted, TurnClosed
from turnwire_server.domain.inference import ConflictPolicy, InferenceState
from turnwire_server.stores.lease import Claim, Effect, Fenced, Step


async def _step(harness: Harness, claim: Claim) -> int:
    """Commit the first step, at position 0, then append an event, at 1; return what holds through."""
    step = Step(1, (llm("A"),), events=tuple(harness.deltas(claim, "a")), checkpoint=b"one")
    committed = await harness.store.commit_step(claim.lease, 0, step)
    await harness.store.append(claim.lease, 1, harness.deltas(claim, "void"))
    return committed.last_sequence


class HandBackPromises:
    """Putting a running inference back to its line."""

    @pytest.mark.parametrize("is_loss", [False, True], ids=["drained", "lost"])
    async def test_what_is_handed_back_is_first_in_line(self, harness: Harness, is_loss: bool) -> None:
        await harness.session("s")
        claim = await harness.running("s", user("q"))
        waiting = await harness.start("s")
        await _step(harness, claim)
        back = await harness.store.hand_back(claim.lease, 2, is_loss=is_loss)
        assert (back.state, back.is_active, back.queue_position) == (InferenceState.QUEUED, True, 1)
        assert (back.attempt, back.turn_index, back.start_time) == (int(is_loss), 0, claim.inference.start_time)
        assert await harness.get(back) == back
        assert (await harness.get(waiting)).queue_position == 2
        assert await harness.store.get_first_in_line("local", "s") == back
        session = await harness.store.get_session("local", "s")
        assert session.active is not None
        assert (session.active.inference_id, session.queued_count) == (back.inference_id, 1)
        assert (await harness.store.heartbeat("me")).running == ()
        assert (await harness.claim()).inference.inference_id == back.inference_id

    @pytest.mark.parametrize("is_loss", [False, True], ids=["drained", "lost"])
    async def test_an_event_tells_what_is_void(self, harness: Harness, is_loss: bool) -> None:
        await harness.session("s")
        claim = await harness.running("s", user("q"))
        holds_through = await _step(harness, claim)
        back = await harness.store.hand_back(claim.lease, 2, is_loss=is_loss)
        event = (await harness.events("s"))[-1]
        assert event.payload == InferenceAttemptLost(0, holds_through, handed_back=not is_loss)
        assert (event.attempt, event.sequence) == (0, back.last_sequence)
        assert back.last_sequence == holds_through + 2
        chunk = (await harness.chunks("s"))[-1]
        assert (chunk.state, chunk.last_sequence) == (InferenceState.QUEUED, back.last_sequence)
        assert texts(await harness.full("s", 0)) == ["q", "A"]  # what was committed is not

    async def test_without_a_step_all_since_the_beginning_is_void(self, harness: Harness) -> None:
        await harness.session("s")
        claim = await harness.running("s")
        await harness.store.append(claim.lease, 0, harness.deltas(claim, "void"))
        await harness.store.hand_back(claim.lease, 1, is_loss=True)
        assert (await harness.payloads("s"))[-1] == InferenceAttemptLost(0, claim.holds_through)
        assert claim.holds_through == claim.inference.last_sequence

    @pytest.mark.parametrize("is_loss", [False, True], ids=["drained", "lost"])
    async def test_the_next_attempt_goes_on_at_the_last_step(self, harness: Harness, is_loss: bool) -> None:
        await harness.session("s")
        claim = await harness.running("s", user("q"))
        await _step(harness, claim)
        await harness.store.record_effects(claim.lease, 2, [Effect("open"), Effect("done")])
        await harness.store.record_effects(claim.lease, 2, [Effect("done", b"result")])
        back = await harness.store.hand_back(claim.lease, 2, is_loss=is_loss)
        following = await harness.claim()
        event = (await harness.events("s"))[-1]  # and no other turn is opened
        assert event.payload == InferenceStarted("scripted", "default", "m1")
        assert event.attempt == following.inference.attempt == int(is_loss)
        assert (following.is_lost, following.position, following.step) == (False, 2, 1)
        assert (following.checkpoint, following.holds_through) == (b"one", back.last_sequence + 1)
        assert by_call(following.effects) == {"open": None, "done": b"result"}
        assert following.inference.start_time == claim.inference.start_time
        assert (await harness.store.get_session("local", "s")).turn_count == 1
        ended = await harness.finish(following, 2, llm("B"), events=harness.deltas(following, "b"))
        assert (ended.state, ended.turn_index, ended.attempt) == (InferenceState.SUCCEEDED, 0, int(is_loss))
        assert texts(await harness.full("s", 0)) == ["q", "A", "B"]
        finished = (await harness.payloads("s"))[-1]
        assert finished == InferenceFinished(DONE, ended.usage, len(await harness.events("s")))

    async def test_losses_are_counted(self, harness: Harness) -> None:
        await harness.session("s")
        claim = await harness.running("s")
        back = claim.inference
        for attempt, is_loss in enumerate((True, True, False, True)):
            if attempt:
                claim = await harness.claim()
            before = claim.inference.attempt
            back = await harness.store.hand_back(claim.lease, 0, is_loss=is_loss)
            assert (await harness.payloads("s"))[-1] == InferenceAttemptLost(
                before, claim.holds_through, handed_back=not is_loss
            )
            assert back.attempt == before + is_loss
        assert back.attempt == 3

    async def test_what_was_lost_is_recovered_by_handing_it_back(self, harness: Harness) -> None:
        await harness.session("s")
        claim = await harness.running("s", user("q"))
        holds_through = await _step(harness, claim)
        await harness.lose(claim)
        await harness.store.register("you")
        lost = await harness.claim("you")
        assert (lost.is_lost, lost.position, lost.holds_through) == (True, 2, holds_through)
        with pytest.raises(Fenced):
            await harness.store.hand_back(claim.lease, 2, is_loss=True)
        await harness.store.hand_back(lost.lease, 2, is_loss=True)
        assert (await harness.payloads("s"))[-1] == InferenceAttemptLost(0, holds_through)
        following = await harness.claim()
        assert (following.is_lost, following.inference.attempt) == (False, 1)

    @pytest.mark.parametrize("is_loss", [False, True], ids=["drained", "lost"])
    async def test_what_is_to_be_cancelled_ends_instead_of_going_back(self, harness: Harness, is_loss: bool) -> None:
        await harness.session("s")
        claim = await harness.running("s")
        urgent = await harness.start("s", policy=ConflictPolicy.INTERRUPT)
        ended = await harness.store.hand_back(claim.lease, 0, is_loss=is_loss)
        assert ended.state is InferenceState.CANCELLED
        assert await harness.store.hand_back(claim.lease, 0, is_loss=is_loss) == ended
        assert [type(payload) for payload in (await harness.payloads("s"))[-3:]] == [
            InferenceAttemptLost,
            TurnClosed,
            InferenceFinished,
        ]
        assert (await harness.claim()).inference.inference_id == urgent.inference_id

    async def test_who_handed_back_is_fenced_after_the_next_claim(self, harness: Harness) -> None:
        await harness.session("s")
        claim = await harness.running("s")
        back = await harness.store.hand_back(claim.lease, 0, is_loss=True)
        assert await harness.store.hand_back(claim.lease, 0, is_loss=True) == back
        await harness.store.register("you")
        following = await harness.claim("you")
        before = await harness.everything()
        with pytest.raises(Fenced):
            await harness.store.hand_back(claim.lease, 0, is_loss=True)
        assert await harness.everything() == before
        assert await harness.again(following, "you") == following

    async def test_a_claim_that_arrives_late_may_have_a_token_that_was_handed_back(self, harness: Harness) -> None:
        for session_id in ("s", "t"):
            await harness.session(session_id)
        lost = await harness.running("s")
        await harness.lose(lost)
        await harness.start("t")
        await harness.store.claim("me", ["of the lost one"], only_lost=True)
        [claim] = await harness.store.claim("me", ["token"])
        await harness.store.hand_back(claim.lease, 0, is_loss=False)
        await harness.store.revoke("me", ["of the lost one"])
        [late] = await harness.store.claim("me", ["token"], only_lost=True)
        assert late.inference.inference_id == lost.inference.inference_id
        next_one = await harness.claim()
        assert next_one.inference.inference_id == claim.inference.inference_id
        assert len((await harness.store.heartbeat("me")).running) == 2

"""What every store promises of the steps of a running inference, and of the tool calls in between."""

from dataclasses import replace

import pytest

from contract.store_harness import DONE, Harness, by_call, llm, marks, texts, user
from turnwire_server.domain.errors import EngineFailedError
from turnwire_server.domain.event import Cancelled, Failed, InferenceFinished, LlmDelta, Outcome, TurnClosed
from turnwire_server.domain.inference import InferenceState, Usage
from turnwire_server.domain.turn import TurnState, TurnView
from turnwire_server.stores.lease import Claim, Effect, Ending, Fenced, Step

_FAILED = Failed(EngineFailedError(engine="scripted").failure())
_WAITS = (InferenceState.WAITING_FOR_TOOLS, InferenceState.PAUSED)


def _step(harness: Harness, claim: Claim, number: int, *pieces: str) -> Step:
    """Return a step that says its pieces in a block each, and tells each of them."""
    blocks, events = tuple(map(llm, pieces)), tuple(harness.deltas(claim, *pieces))
    return Step(number, blocks, Usage(1, 10, 100, 1000), f"m{number}", events, f"checkpoint {number}".encode())


class StepPromises:
    """Committing steps."""

    async def test_a_step_is_in_the_turn_while_that_is_open(self, harness: Harness) -> None:
        await harness.session("s")
        claim = await harness.running("s", user("q"))
        committed = await harness.store.commit_step(claim.lease, 0, _step(harness, claim, 1, "a", "b"))
        assert (committed.state, committed.last_sequence) == (InferenceState.RUNNING, 5)
        assert await harness.get(committed) == committed
        assert (await harness.payloads("s"))[3:] == [LlmDelta("a", 0), LlmDelta("b", 0)]
        assert (await harness.chunks("s"))[-1].state is None  # it runs on
        turn = await harness.full("s", 0)
        assert (turn.state, turn.close_time, turn.block_count) == (TurnState.OPEN, None, 3)
        assert (turn.inherited_block_count, turn.given_block_count) == (0, 1)
        assert texts(turn) == ["q", "a", "b"]
        listed = await harness.store.list_turns("local", "s", TurnView.DELTA, 9, None, newest_first=True)
        assert listed.items == (turn,)
        ids = [block.id for block in turn.blocks]
        assert len({*ids, ""}) == 4

    async def test_steps_and_the_ending_add_up(self, harness: Harness) -> None:
        await harness.session("s")
        await harness.turn("s", "q0", "a0")
        claim = await harness.running("s", user("q"))
        await harness.store.commit_step(claim.lease, 0, _step(harness, claim, 1, "a"))
        between = await harness.store.commit_step(claim.lease, 1, _step(harness, claim, 2, "b", "c"))
        assert (between.usage, between.model) == (Usage(2, 20, 200, 2000), "m2")
        ids = [block.id for block in (await harness.full("s", 1)).blocks]
        ending = Ending(DONE, Usage(5, 5, 5, 5), "", (llm("d"),), tuple(harness.deltas(claim, "d")))
        ended = await harness.store.finish(claim.lease, 3, ending)
        assert (ended.usage, ended.model) == (Usage(7, 25, 205, 2005), "m2")
        assert (await harness.payloads("s"))[-2:] == [TurnClosed(1, 7), InferenceFinished(DONE, ended.usage, 9)]
        turn = await harness.full("s", 1)
        assert texts(turn) == ["q0", "a0", "q", "a", "b", "c", "d"]
        assert [block.id for block in turn.blocks[:-1]] == ids

    async def test_the_model_is_the_last_that_was_named(self, harness: Harness) -> None:
        await harness.session("s")
        claim = await harness.running("s")
        assert claim.inference.model == ""
        for number, (said, model) in enumerate((("", ""), ("x", "x"), ("", "x"), ("y", "y")), 1):
            committed = await harness.store.commit_step(claim.lease, 0, Step(number, model=said))
            assert committed.model == model
        assert (await harness.store.finish(claim.lease, 0, Ending(DONE, model="z"))).model == "z"

    @pytest.mark.parametrize("outcome", [Cancelled(), _FAILED], ids=["cancelled", "failed"])
    async def test_what_was_committed_stays_whatever_comes(self, harness: Harness, outcome: Outcome) -> None:
        await harness.session("s")
        claim = await harness.running("s", user("q"))
        await harness.store.commit_step(claim.lease, 0, _step(harness, claim, 1, "a"))
        await harness.lose(claim)
        claim = await harness.claim()
        assert texts(await harness.full("s", 0)) == ["q", "a"]
        await harness.store.hand_back(claim.lease, 1, is_loss=True)
        claim = await harness.claim()
        assert texts(await harness.full("s", 0)) == ["q", "a"]
        ended = await harness.finish(claim, 1, llm("par"), outcome=outcome)
        assert ended.usage == Usage(1, 10, 100, 1000)
        assert texts(await harness.full("s", 0)) == ["q", "a", "par"]

    async def test_a_claim_goes_on_from_the_last_step(self, harness: Harness) -> None:
        await harness.session("s")
        claim = await harness.running("s")
        committed = claim.inference
        for number in (1, 2):
            committed = await harness.store.commit_step(claim.lease, number - 1, _step(harness, claim, number, "a"))
            now = await harness.again(claim)
            assert (now.step, now.position, now.checkpoint) == (number, number, f"checkpoint {number}".encode())
            assert (now.holds_through, now.inference) == (committed.last_sequence, committed)
        await harness.store.append(claim.lease, 2, harness.deltas(claim, "x"))
        await harness.store.record_effects(claim.lease, 3, [Effect("c")], harness.deltas(claim, "y"))
        now = await harness.again(claim)
        assert (now.position, now.holds_through) == (4, committed.last_sequence)
        assert now.inference.last_sequence == committed.last_sequence + 2

    async def test_a_step_without_events_appends_nothing(self, harness: Harness) -> None:
        await harness.session("s")
        claim = await harness.running("s", user("q"))
        await harness.store.append(claim.lease, 0, harness.deltas(claim, "a"))
        head = len(await harness.events("s"))
        for _ in range(2):
            await harness.store.commit_step(claim.lease, 1, Step(1, (llm("a"),), checkpoint=b"one"))
        assert len(await harness.events("s")) == head
        assert texts(await harness.full("s", 0)) == ["q", "a"]
        now = await harness.again(claim)
        assert (now.position, now.step, now.checkpoint, now.holds_through) == (1, 1, b"one", head)

    async def test_a_step_of_another_number_is_fenced(self, harness: Harness) -> None:
        await harness.session("s")
        claim = await harness.running("s")
        await harness.store.commit_step(claim.lease, 0, _step(harness, claim, 1, "a"))
        before, held = await harness.everything(), await harness.again(claim)
        for number in (0, 1, 3):
            with pytest.raises(Fenced):
                await harness.store.commit_step(claim.lease, 1, _step(harness, claim, number, "b"))
        assert await harness.everything() == before
        assert await harness.again(claim) == held

    @pytest.mark.parametrize("then", [InferenceState.RUNNING, *_WAITS])
    async def test_a_step_that_cannot_be_encoded_changes_nothing(self, harness: Harness, then: InferenceState) -> None:
        await harness.session("s")
        claim = await harness.running("s")
        await harness.store.record_effects(claim.lease, 0, [Effect("c")])
        step = replace(_step(harness, claim, 1, "a"), then=then)
        before, held = await harness.everything(), await harness.again(claim)
        for broken in (
            replace(step, model="\ud800"),
            replace(step, blocks=(llm("fine"), llm("\ud800"))),
            replace(step, data={"app.of@v1": "\ud800"}, marks=marks(harness, 1)),
        ):
            with pytest.raises(UnicodeEncodeError):
                await harness.store.commit_step(claim.lease, 0, broken)
            assert await harness.everything() == before
            assert await harness.again(claim) == held
        assert (await harness.store.commit_step(claim.lease, 0, step)).state is then

    @pytest.mark.parametrize("then", _WAITS)
    async def test_a_wait_that_nothing_tells_of_changes_nothing(self, harness: Harness, then: InferenceState) -> None:
        await harness.session("s")
        claim = await harness.running("s")
        await harness.store.record_effects(claim.lease, 0, [Effect("c")])
        before, held = await harness.everything(), await harness.again(claim)
        step = Step(1, (llm("a"),), checkpoint=b"one", then=then, wake_time=harness.now, marks=marks(harness, 1))
        with pytest.raises(ValueError, match="no event tells of it"):
            await harness.store.commit_step(claim.lease, 0, step)
        assert await harness.everything() == before
        assert await harness.again(claim) == held
        told = replace(step, events=tuple(harness.deltas(claim, "waits")))
        assert (await harness.store.commit_step(claim.lease, 0, told)).state is then

    @pytest.mark.parametrize("then", _WAITS)
    async def test_a_step_that_waits_releases_the_lease(self, harness: Harness, then: InferenceState) -> None:
        await harness.session("s")
        claim = await harness.running("s", user("q"))
        step = replace(_step(harness, claim, 1, "a", "b"), then=then)
        waiting = await harness.store.commit_step(claim.lease, 0, step)
        assert (waiting.state, waiting.is_active, waiting.queue_position) == (then, True, None)
        assert (waiting.attempt, waiting.start_time) == (0, claim.inference.start_time)
        chunk = (await harness.chunks("s"))[-1]
        assert (chunk.state, chunk.last_sequence) == (then, waiting.last_sequence)
        assert texts(await harness.full("s", 0)) == ["q", "a", "b"]
        assert await harness.claims() == ()
        assert await harness.store.claim("me", [claim.lease.token]) == ()
        assert (await harness.store.heartbeat("me")).running == ()
        session = await harness.store.get_session("local", "s")
        assert session.active is not None
        assert session.active.inference_id == waiting.inference_id


class EffectPromises:
    """Tool calls that are about to be executed, and what came of them."""

    async def test_effects_are_kept_until_the_step_is_committed(self, harness: Harness) -> None:
        await harness.session("s")
        claim = await harness.running("s")
        await harness.store.record_effects(claim.lease, 0, [Effect("a"), Effect("b")])
        assert by_call((await harness.again(claim)).effects) == {"a": None, "b": None}
        await harness.store.record_effects(claim.lease, 0, [Effect("a", b"A"), Effect("c")])
        assert by_call((await harness.again(claim)).effects) == {"a": b"A", "b": None, "c": None}
        await harness.store.commit_step(claim.lease, 0, _step(harness, claim, 1, "x"))
        assert (await harness.again(claim)).effects == ()
        for effect in (Effect("a", b"late"), Effect("b", b"late")):  # they are settled
            with pytest.raises(LookupError):
                await harness.store.record_effects(claim.lease, 1, [effect])
        await harness.store.record_effects(claim.lease, 1, [Effect("a")])  # a call of the step that follows
        assert by_call((await harness.again(claim)).effects) == {"a": None}

    async def test_events_are_appended_with_effects(self, harness: Harness) -> None:
        await harness.session("s")
        claim = await harness.running("s")
        await harness.store.record_effects(claim.lease, 0, [Effect("a")], harness.deltas(claim, "x", "y"))
        await harness.store.record_effects(claim.lease, 2, [Effect("a", b"")], harness.deltas(claim, "z"))
        now = await harness.again(claim)
        assert (now.position, by_call(now.effects)) == (3, {"a": b""})
        assert (await harness.payloads("s"))[3:] == [LlmDelta("x", 0), LlmDelta("y", 0), LlmDelta("z", 0)]
        assert (await harness.get(claim.inference)).last_sequence == 6
        assert (await harness.chunks("s"))[-1].state is None

    async def test_the_first_outcome_stays(self, harness: Harness) -> None:
        await harness.session("s")
        claim = await harness.running("s")
        await harness.store.record_effects(claim.lease, 0, [Effect("a"), Effect("b")])
        await harness.store.record_effects(claim.lease, 0, [Effect("a", b"first")], harness.deltas(claim, "x"))
        await harness.store.record_effects(claim.lease, 1, [Effect("a", b"second")], harness.deltas(claim, "y"))
        await harness.store.record_effects(claim.lease, 2, [Effect("a")])  # an outcome is not forgotten
        await harness.store.record_effects(claim.lease, 2, [Effect("b", b"one"), Effect("b", b"two")])
        now = await harness.again(claim)
        assert (now.position, by_call(now.effects)) == (2, {"a": b"first", "b": b"one"})

    async def test_an_outcome_of_nothing_changes_nothing(self, harness: Harness) -> None:
        await harness.session("s")
        claim = await harness.running("s")
        await harness.store.record_effects(claim.lease, 0, [Effect("a")])
        before, held = await harness.everything(), await harness.again(claim)
        effects = [Effect("new"), Effect("a", b"A"), Effect("never", b"N")]
        with pytest.raises(LookupError):
            await harness.store.record_effects(claim.lease, 0, effects, harness.deltas(claim, "x"))
        assert await harness.everything() == before
        assert await harness.again(claim) == held

    async def test_effects_are_those_of_one_inference(self, harness: Harness) -> None:
        for session_id in ("s", "t"):
            await harness.session(session_id)
        first, second = await harness.running("s"), await harness.running("t")
        await harness.store.record_effects(first.lease, 0, [Effect("a")])
        with pytest.raises(LookupError):
            await harness.store.record_effects(second.lease, 0, [Effect("a", b"A")])
        await harness.store.commit_step(second.lease, 0, Step(1))
        assert by_call((await harness.again(first)).effects) == {"a": None}

"""What every store promises of starts that displace what is first in the line of a session."""

import pytest

from contract.store_harness import ADMISSION, LEASELESS, Harness, llm, user
from turnwire_server.domain.event import Cancelled, InferenceFinished, InferenceQueued, TurnClosed
from turnwire_server.domain.inference import ConflictPolicy, InferenceState
from turnwire_server.stores.start import Admission, SessionState, StartCommand

INTERRUPT, ROLLBACK = ConflictPolicy.INTERRUPT, ConflictPolicy.ROLLBACK


class DisplacePromises:
    """INTERRUPT and ROLLBACK."""

    async def test_interrupt_flags_what_runs_and_comes_first(self, harness: Harness) -> None:
        await harness.session("s")
        claim = await harness.running("s")
        waiting = await harness.start("s")
        head = (await harness.store.get_session("local", "s")).head_sequence
        urgent = await harness.start("s", policy=INTERRUPT)
        assert urgent.queue_position == 1
        assert (await harness.store.get_session("local", "s")).head_sequence == head + 1
        flagged = await harness.get(claim.inference)
        assert (flagged.state, flagged.cancel_requested_time) == (InferenceState.RUNNING, harness.now)
        assert await harness.claims() == ()
        await harness.finish(claim, 0, outcome=Cancelled())
        assert (await harness.claim()).inference.inference_id == urgent.inference_id
        assert (await harness.get(waiting)).queue_position == 1

    async def test_interrupt_of_an_idle_session_displaces_nothing(self, harness: Harness) -> None:
        await harness.session("s")
        await harness.turn("s", "zero", "0")
        for policy in (INTERRUPT, ROLLBACK):
            urgent = await harness.start("s", policy=policy)
            assert urgent.queue_position == 1
            claim = await harness.claim()
            assert (await harness.full("s", claim.inference.turn_index)).parent == (0 if policy is INTERRUPT else 1)
            await harness.finish(claim, 0)

    @pytest.mark.parametrize("policy", [INTERRUPT, ROLLBACK])
    async def test_the_first_in_line_is_displaced_where_none_is_active(
        self, harness: Harness, policy: ConflictPolicy
    ) -> None:
        await harness.session("s")
        await harness.turn("s", "zero", "0")
        first, second, third = [await harness.start("s") for _ in range(3)]
        head = (await harness.store.get_session("local", "s")).head_sequence
        urgent = await harness.start("s", policy=policy)
        ended = await harness.get(first)
        assert (ended.state, ended.end_time, ended.turn_index) == (InferenceState.CANCELLED, harness.now, None)
        finished, queued = (await harness.payloads("s"))[head:]
        assert isinstance(finished, InferenceFinished)
        assert (queued, await harness.positions(urgent, second, third)) == (InferenceQueued(1), [1, 2, 3])
        claim = await harness.claim()
        assert claim.inference.inference_id == urgent.inference_id
        assert (await harness.full("s", 1)).parent == 0
        assert (await harness.store.get_session("local", "s")).queued_count == 2

    async def test_only_what_is_active_is_displaced_where_something_is(self, harness: Harness) -> None:
        await harness.session("s")
        claim = await harness.running("s")
        urgent = [await harness.start("s", policy=INTERRUPT) for _ in range(3)]
        assert await harness.positions(*urgent) == [3, 2, 1]
        await harness.finish(claim, 0, outcome=Cancelled())
        last = await harness.start("s", policy=INTERRUPT)
        states = [(await harness.get(each)).state for each in urgent]
        assert states == [InferenceState.QUEUED, InferenceState.QUEUED, InferenceState.CANCELLED]
        assert await harness.positions(last, *urgent) == [1, 3, 2, None]

    async def test_rollback_of_what_has_no_turn_takes_over_what_that_would_be_built_on(self, harness: Harness) -> None:
        await harness.session("s")
        for number in range(3):
            await harness.turn("s", f"q{number}", f"a{number}")
        await harness.start("s", parent=0)
        for _ in range(3):
            await harness.start("s", policy=ROLLBACK)  # and of that, and of that
        claim = await harness.claim()
        assert (await harness.full("s", claim.inference.turn_index)).parent == 0
        await harness.finish(claim, 0)
        await harness.start("s", parent=0)
        await harness.start("s", parent=1, policy=ROLLBACK)
        claim = await harness.claim()
        assert (await harness.full("s", claim.inference.turn_index)).parent == 1

    async def test_rollback_of_what_would_be_built_on_the_newest_turn(self, harness: Harness) -> None:
        await harness.session("s")
        await harness.turn("s", "zero", "0")
        claim = await harness.running("s")
        await harness.start("s")
        await harness.finish(claim, 0)
        seen: list[SessionState] = []

        def look(_: StartCommand, state: SessionState) -> Admission:
            seen.append(state)
            return ADMISSION

        await harness.store.start(harness.command("s", user("two"), conflict_policy=ROLLBACK), look)
        assert seen[0].parent is not None
        assert seen[0].parent.index == 1
        claim = await harness.claim()
        assert (await harness.full("s", claim.inference.turn_index)).parent == 1

    async def test_rollback_of_a_rollback(self, harness: Harness) -> None:
        await harness.session("s")
        await harness.turn("s", "zero", "0")
        await harness.turn("s", "one", "1")
        claim = await harness.running("s", parent=0)
        for _ in range(2):
            await harness.start("s", policy=ROLLBACK)
            await harness.finish(claim, 0, outcome=Cancelled())
            claim = await harness.claim()
            assert (await harness.full("s", claim.inference.turn_index)).parent == 0
        await harness.store.hand_back(claim.lease, 0, is_loss=False)
        await harness.start("s", policy=ROLLBACK)
        claim = await harness.claim()
        turn = await harness.full("s", claim.inference.turn_index)
        assert (turn.index, turn.parent) == (5, 0)

    @pytest.mark.parametrize("policy", [INTERRUPT, ROLLBACK])
    @pytest.mark.parametrize("then", LEASELESS)
    async def test_what_is_displaced_without_a_lease_ends_first(
        self, harness: Harness, then: InferenceState, policy: ConflictPolicy
    ) -> None:
        await harness.session("s")
        await harness.turn("s", "zero", "0")
        displaced = await harness.leaseless("s", then, llm("done so far"))
        waiting = await harness.start("s")
        head = (await harness.store.get_session("local", "s")).head_sequence
        urgent = await harness.start("s", user("two"), policy=policy)
        ended = await harness.get(displaced.inference)
        assert (ended.state, ended.end_time) == (InferenceState.CANCELLED, harness.now)
        closed, finished, queued = (await harness.payloads("s"))[head:]
        assert closed == TurnClosed(1, 4)
        assert isinstance(finished, InferenceFinished)
        assert (queued, urgent.queue_position) == (InferenceQueued(1), 1)
        claim = await harness.claim()
        assert claim.inference.inference_id == urgent.inference_id
        assert (await harness.full("s", 2)).parent == (1 if policy is INTERRUPT else 0)
        assert (await harness.get(waiting)).queue_position == 1

    async def test_rollback_builds_on_the_parent_of_what_it_displaces(self, harness: Harness) -> None:
        await harness.session("s")
        await harness.turn("s", "zero", "0")
        displaced = await harness.running("s", user("one"))
        seen: list[SessionState] = []

        def look(_: StartCommand, state: SessionState) -> Admission:
            seen.append(state)
            return ADMISSION

        await harness.store.start(harness.command("s", user("two"), conflict_policy=ROLLBACK), look)
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

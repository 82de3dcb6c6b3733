"""What every store promises of the step mode of a session."""

from datetime import timedelta

import pytest

from contract.store_harness import Harness, gather
from turnwire_server.domain.session import PauseAction, SessionChange, StepMode

_MODES = (
    StepMode(),
    StepMode(timedelta(days=1), PauseAction.ABORT),
    StepMode(timedelta(microseconds=1)),
    None,
)


class StepModePromises:
    """Turning step mode on and off."""

    async def test_a_session_begins_without_step_mode(self, harness: Harness) -> None:
        assert (await harness.session("s")).step_mode is None

    @pytest.mark.parametrize("mode", _MODES)
    async def test_step_mode_is_what_was_set_last(self, harness: Harness, mode: StepMode | None) -> None:
        before = await harness.session("s")
        await harness.session("t")
        harness.now += timedelta(seconds=1)
        await harness.store.set_step_mode("local", "s", StepMode(timedelta(seconds=3)), harness.mint())
        session = await harness.store.set_step_mode("local", "s", mode, harness.mint())
        assert session.step_mode == mode
        assert (session.revision, session.update_time) == (before.revision, before.update_time)
        assert await harness.store.get_session("local", "s") == session
        others, listed = (await harness.store.list_sessions("local", {}, 9, None)).items
        assert (others.step_mode, listed) == (None, session)

    async def test_a_change_of_a_session_leaves_its_step_mode(self, harness: Harness) -> None:
        await harness.session("s")
        session = await harness.store.set_step_mode("local", "s", _MODES[1], harness.mint())
        changed = await harness.store.update_session("local", "s", SessionChange("x"), session.revision, harness.mint())
        assert changed.step_mode == _MODES[1]
        assert changed == await harness.store.get_session("local", "s")

    async def test_step_mode_is_set_while_an_inference_runs(self, harness: Harness) -> None:
        await harness.session("s")
        claim = await harness.running("s")
        head = (await harness.store.get_session("local", "s")).head_sequence
        session = await harness.store.set_step_mode("local", "s", _MODES[0], harness.mint())
        assert session.active is not None
        assert session.active.inference_id == claim.inference.inference_id
        assert session.head_sequence == head
        await harness.finish(claim, 0)
        assert (await harness.store.get_session("local", "s")).step_mode == _MODES[0]

    async def test_a_step_mode_sent_again_undoes_nothing(self, harness: Harness) -> None:
        await harness.session("s")
        await harness.store.set_step_mode("local", "s", _MODES[0], "first")
        await harness.store.set_step_mode("local", "s", None, "second")
        now = await harness.store.set_step_mode("local", "s", _MODES[0], "first")
        assert now == await harness.store.get_session("local", "s")
        assert now.step_mode is None

    async def test_of_several_step_modes_the_last_one_stays(self, harness: Harness) -> None:
        await harness.session("s")
        modes = [StepMode(timedelta(seconds=seconds)) for seconds in range(1, 9)]
        results = await gather(*(harness.store.set_step_mode("local", "s", mode, harness.mint()) for mode in modes))
        assert [result for result in results if isinstance(result, BaseException)] == []
        assert (await harness.store.get_session("local", "s")).step_mode == modes[-1]

    async def test_step_mode_goes_with_its_session(self, harness: Harness) -> None:
        await harness.session("s")
        await harness.store.set_step_mode("local", "s", _MODES[0], "token")
        await harness.delete("s")
        assert (await harness.session("s")).step_mode is None
        assert (await harness.store.set_step_mode("local", "s", _MODES[0], "token")).step_mode is None

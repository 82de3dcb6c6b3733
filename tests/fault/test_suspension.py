"""Every moment of an inference: cancelled, crashed and killed at each point where anything of it waits."""

from collections.abc import Callable

import pytest

from fault.suspension import HAPPENINGS, PLAYS, Play, count_points
from support.agent_world import script


@pytest.mark.parametrize("happening", HAPPENINGS)
@pytest.mark.parametrize("play", PLAYS, ids=lambda play: play.name)
def test_whatever_happens_at_any_point(
    play: Play, happening: str, capsys: pytest.CaptureFixture[str], record_property: Callable[[str, object], None]
) -> None:
    count = count_points(play, HAPPENINGS[happening])
    record_property("points", count)
    with capsys.disabled():
        print(f"\n{play.name}, {happening}: N = {count}")
    assert count or (happening == "tool crash" and not play.tools)


def test_a_play_without_a_plan_has_points() -> None:
    assert count_points(Play("echo", script()), HAPPENINGS["cancel"]) > 3

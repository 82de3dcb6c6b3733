"""Admission, over every combination of what it looks at."""

from datetime import UTC, datetime
from itertools import product

import pytest

from turnwire_server.domain.errors import (
    EmptyTurnError,
    ProfileNotFoundError,
    SessionBusyError,
    TurnNotClosedError,
    TurnwireError,
)
from turnwire_server.domain.inference import InferenceConfig, InferenceState, Overrides
from turnwire_server.domain.profile import Profile, Profiles
from turnwire_server.domain.session import Session
from turnwire_server.domain.turn import Block, Turn, TurnState, User
from turnwire_server.runtime.admission import decide_start
from turnwire_server.stores.start import Admission, SessionState, StartCommand, Unfinished

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PROFILES = Profiles(
    {
        "default": Profile("default", "scripted", config=InferenceConfig(model="a", temperature=0.5)),
        "other": Profile("other", "pydantic_ai"),
    },
    "default",
)
INPUT = (Block("b", User("hello")),)


def _turn(state: TurnState, block_count: int) -> Turn:
    return Turn("s", "i", 0, "t", state, NOW, block_count=block_count)


PARENTS = (None, _turn(TurnState.OPEN, 1), _turn(TurnState.CLOSED, 0), _turn(TurnState.CLOSED, 2))
UNFINISHED = (
    (),
    (Unfinished("first", InferenceState.QUEUED, False), Unfinished("second", InferenceState.QUEUED, False)),
)


def _expected(command: StartCommand, state: SessionState) -> type[TurnwireError] | None:
    if state.unfinished:
        return SessionBusyError
    if command.parent is not None and state.parent and state.parent.state is TurnState.OPEN:
        return TurnNotClosedError
    if not command.input and not (state.parent and state.parent.block_count):
        return EmptyTurnError
    if (command.profile or state.session.profile or "default") not in PROFILES.by_name:
        return ProfileNotFoundError
    return None


@pytest.mark.parametrize("unfinished", UNFINISHED, ids=["idle", "busy"])
@pytest.mark.parametrize("parent", PARENTS, ids=["none", "open", "empty", "closed"])
def test_every_combination(unfinished: tuple[Unfinished, ...], parent: Turn | None) -> None:
    for input_, named, asked, own in product(((), INPUT), (None, 0), ("", "other", "nope"), ("", "other", "gone")):
        command = StartCommand("local", "i", "s", input=input_, parent=named, profile=asked)
        state = SessionState(Session("s", NOW, NOW, "log", profile=own), unfinished, parent)
        expected = _expected(command, state)
        if expected:
            with pytest.raises(expected):
                decide_start(command, state, PROFILES)
        else:
            assert decide_start(command, state, PROFILES).profile == (asked or own or "default")


def test_a_busy_session_names_the_first_in_line() -> None:
    state = SessionState(Session("s", NOW, NOW, "log"), UNFINISHED[1], None)
    with pytest.raises(SessionBusyError) as refused:
        decide_start(StartCommand("local", "i", "s", input=INPUT), state, PROFILES)
    assert refused.value.metadata == {"session_id": "s", "inference_id": "first"}


def test_overrides_are_laid_over_the_profile() -> None:
    state = SessionState(Session("s", NOW, NOW, "log"), (), None)
    overrides = Overrides(InferenceConfig(temperature=0.0, seed=7))
    admission = decide_start(StartCommand("local", "i", "s", input=INPUT, overrides=overrides), state, PROFILES)
    assert admission == Admission("default", "scripted", InferenceConfig(model="a", temperature=0.0, seed=7))

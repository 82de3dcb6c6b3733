"""Admission, over every combination of what it looks at."""

from dataclasses import replace
from datetime import UTC, datetime
from itertools import product

import pytest

from turnwire_server.domain.errors import (
    CapabilityMissingError,
    EmptyTurnError,
    OverrideNotAllowedError,
    ProfileNotFoundError,
    QueueFullError,
    SessionBusyError,
    TurnNotClosedError,
    TurnwireError,
)
from turnwire_server.domain.inference import ConflictPolicy, InferenceConfig, InferenceState, Overrides
from turnwire_server.domain.profile import OVERRIDES, Capabilities, Profile, Profiles
from turnwire_server.domain.session import Session
from turnwire_server.domain.tool import Tool
from turnwire_server.domain.turn import Block, Image, Turn, TurnState, User
from turnwire_server.runtime.admission import decide_start
from turnwire_server.stores.start import Admission, SessionState, StartCommand, Unfinished

NOW = datetime(2026, 1, 1, tzinfo=UTC)
QUEUE_DEPTH_MAX = 2
PROFILES = Profiles(
    {
        "default": Profile("default", "scripted", config=InferenceConfig(model="a", temperature=0.5)),
        "other": Profile("other", "pydantic_ai"),
        "fixed": Profile("fixed", "scripted", overrides=frozenset()),
        "blind": Profile(
            "blind", "scripted", capabilities=Capabilities(tools=False, structured_output=False, images=False)
        ),
    },
    "default",
)
INPUT = (Block("b", User("hello")),)
QUEUED = Unfinished("queued", InferenceState.QUEUED, False)
ACTIVE = {
    state: Unfinished("active", state, True)
    for state in (
        InferenceState.RUNNING,
        InferenceState.WAITING_FOR_TOOLS,
        InferenceState.PAUSED,
        InferenceState.QUEUED,
    )
}


def _turn(state: TurnState, block_count: int) -> Turn:
    return Turn("s", "i", 0, "t", state, NOW, block_count=block_count)


PARENTS = (None, _turn(TurnState.OPEN, 1), _turn(TurnState.CLOSED, 0), _turn(TurnState.CLOSED, 2))

# Every line there is, as far as a decision can tell: who is active, if anybody is, and how many wait behind.
LINES = [
    (*active, *(replace(QUEUED, inference_id=f"queued {number}") for number in range(count)))
    for active in ((), *((each,) for each in ACTIVE.values()))
    for count in range(QUEUE_DEPTH_MAX + 2)
]


def _session(profile: str = "", config: InferenceConfig | None = None) -> Session:
    return Session("s", NOW, NOW, "log", profile=profile, config=config or InferenceConfig())


def _decide(command: StartCommand, state: SessionState) -> Admission:
    return decide_start(command, state, PROFILES, QUEUE_DEPTH_MAX)


def _line_error(policy: ConflictPolicy, line: tuple[Unfinished, ...]) -> type[TurnwireError] | None:
    if not line:
        return None
    if policy is ConflictPolicy.REJECT:
        return SessionBusyError
    waiting = [each for each in line if not each.is_active]
    # Who displaces somebody that waits takes that place.
    places = waiting[1:] if policy is not ConflictPolicy.ENQUEUE and not line[0].is_active else waiting
    return QueueFullError if len(places) >= QUEUE_DEPTH_MAX else None


def _turn_error(command: StartCommand, parent: Turn | None) -> type[TurnwireError] | None:
    if command.parent is not None and parent and parent.state is TurnState.OPEN:
        return TurnNotClosedError
    return None if command.input or (parent and parent.block_count) else EmptyTurnError


@pytest.mark.parametrize("policy", [*ConflictPolicy], ids=lambda policy: policy.name)
@pytest.mark.parametrize("parent", PARENTS, ids=["none", "open", "empty", "closed"])
def test_every_combination(policy: ConflictPolicy, parent: Turn | None) -> None:
    seen: set[type[TurnwireError] | None] = set()
    for line, input_, named, asked, own in product(
        LINES, ((), INPUT), (None, 0), ("", "other", "nope"), ("", "other", "gone")
    ):
        command = StartCommand("local", "i", "s", input=input_, parent=named, profile=asked, conflict_policy=policy)
        profile = asked or own or "default"
        expected = (
            _line_error(policy, line)
            or _turn_error(command, parent)
            or (None if profile in PROFILES.by_name else ProfileNotFoundError)
        )
        seen.add(expected)
        state = SessionState(_session(own), line, parent)
        if expected:
            with pytest.raises(expected):
                _decide(command, state)
        else:
            assert _decide(command, state).profile == profile
    assert len(seen) >= 3


def test_a_busy_session_names_the_first_in_line() -> None:
    state = SessionState(_session(), (ACTIVE[InferenceState.PAUSED], QUEUED), None)
    with pytest.raises(SessionBusyError) as refused:
        _decide(StartCommand("local", "i", "s", input=INPUT), state)
    assert refused.value.metadata == {"session_id": "s", "inference_id": "active"}


def test_a_full_line_says_how_full() -> None:
    state = SessionState(_session(), (ACTIVE[InferenceState.RUNNING], QUEUED, QUEUED), None)
    with pytest.raises(QueueFullError) as refused:
        _decide(StartCommand("local", "i", "s", input=INPUT, conflict_policy=ConflictPolicy.ENQUEUE), state)
    assert refused.value.metadata == {"session_id": "s", "queue_depth": "2", "queue_depth_max": "2"}
    assert refused.value.retry_delay_seconds


def test_a_request_goes_before_its_session_and_that_before_the_profile() -> None:
    session = _session(config=InferenceConfig(temperature=1.0, top_p=0.5, seed=1))
    overrides = Overrides(InferenceConfig(temperature=0.0, seed=7))
    command = StartCommand("local", "i", "s", input=INPUT, overrides=overrides)
    admission = _decide(command, SessionState(session, (), None))
    config = InferenceConfig(model="a", temperature=0.0, top_p=0.5, seed=7)
    assert admission == Admission("default", "scripted", config)


CHANGES = {
    "model": Overrides(InferenceConfig(model="b")),
    "config": Overrides(InferenceConfig(seed=1)),
    "tools": Overrides(tools=(Tool("t"),)),
    "output_schema": Overrides(output_schema="{}"),
    "engine_options": Overrides(engine_options="{}"),
    "record_snapshots": Overrides(record_snapshots=True),
}


def test_every_override_has_its_own_permission() -> None:
    assert CHANGES.keys() == OVERRIDES
    for name, overrides in CHANGES.items():
        command = StartCommand("local", "i", "s", input=INPUT, overrides=overrides, profile="fixed")
        with pytest.raises(OverrideNotAllowedError) as refused:
            _decide(command, SessionState(_session(), (), None))
        assert refused.value.metadata == {"profile": "fixed", "override": name}
        allowed = replace(PROFILES.by_name["fixed"], overrides=frozenset({name}))
        decide_start(command, SessionState(_session(), (), None), Profiles({"fixed": allowed}, "fixed"), 1)


@pytest.mark.parametrize(
    ("name", "config"), [("model", InferenceConfig(model="b")), ("config", InferenceConfig(seed=1))]
)
def test_a_session_changes_no_more_than_a_request(name: str, config: InferenceConfig) -> None:
    command = StartCommand("local", "i", "s", input=INPUT)
    with pytest.raises(OverrideNotAllowedError) as refused:
        _decide(command, SessionState(_session("fixed", config), (), None))
    assert refused.value.metadata["override"] == name


@pytest.mark.parametrize(
    ("capability", "command"),
    [
        ("tools", StartCommand("local", "i", "s", input=INPUT, overrides=CHANGES["tools"])),
        ("structured_output", StartCommand("local", "i", "s", input=INPUT, overrides=CHANGES["output_schema"])),
        ("images", StartCommand("local", "i", "s", input=(Block("", User("", (Image(url="http://x/y"),))),))),
    ],
)
def test_what_a_profile_cannot_do_is_refused(capability: str, command: StartCommand) -> None:
    state = SessionState(_session(), (), None)
    with pytest.raises(CapabilityMissingError) as refused:
        _decide(replace(command, profile="blind"), state)
    assert refused.value.metadata == {"profile": "blind", "capability": capability}
    _decide(command, state)

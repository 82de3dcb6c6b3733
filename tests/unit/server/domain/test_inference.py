import itertools
from dataclasses import fields, replace
from datetime import UTC, datetime
from typing import Any

import pytest

from turnwire_server.domain.inference import (
    TOKENS_MAX,
    TRANSITIONS,
    IllegalTransition,
    Inference,
    InferenceConfig,
    InferenceState,
    Usage,
    advance,
)

NOW = datetime(2026, 11, 20, tzinfo=UTC)
Q, R, W, P, S, F, C = InferenceState

# Written out once more, by hand: the table is the law, and this is its copy in another safe.
LEGAL = {
    *((Q, to) for to in (R, F, C)),
    *((R, to) for to in (W, P, Q, S, F, C)),
    *((W, to) for to in (Q, F, C)),
    *((P, to) for to in (Q, F, C)),
}


def inference(state: InferenceState) -> Inference:
    return Inference("s", "i", state, NOW, queue_position=3)


@pytest.mark.parametrize(("state", "to"), list(itertools.product(InferenceState, repeat=2)), ids=lambda each: each.name)
def test_every_move(state: InferenceState, to: InferenceState) -> None:
    before = inference(state)
    if (state, to) in LEGAL:
        assert advance(before, to) == replace(before, state=to, queue_position=None)
    else:
        with pytest.raises(IllegalTransition, match=f"from {state.name} to {to.name}"):
            advance(before, to)
        assert before == inference(state)


def test_every_state_has_a_row() -> None:
    assert set(TRANSITIONS) == set(InferenceState)


def test_terminal_states() -> None:
    assert {state for state in InferenceState if state.is_terminal} == {S, F, C}


def test_every_state_can_end_and_be_reached() -> None:
    assert {to for _, to in LEGAL} == set(InferenceState)
    for state in InferenceState:
        assert state.is_terminal or TRANSITIONS[state] >= {F, C}


@pytest.mark.parametrize(
    ("state", "has_begun", "is_active"),
    [
        (Q, False, False),
        (Q, True, True),
        (R, True, True),
        (W, True, True),
        (P, True, True),
        (S, True, False),
        (C, False, False),
    ],
)
def test_active(state: InferenceState, has_begun: bool, is_active: bool) -> None:
    begun = replace(inference(state), start_time=NOW if has_begun else None)
    assert begun.is_active is is_active


FULL = InferenceConfig(
    model="m",
    temperature=0.5,
    top_p=0.9,
    max_output_tokens=10,
    stop_sequences=("x",),
    seed=7,
    reasoning_effort="low",
    iterations_max=3,
    tool_choice="auto",
    parallel_tool_calls=True,
)


@pytest.mark.parametrize("name", [field.name for field in fields(InferenceConfig)])
def test_overlay_takes_each_field_that_is_set(name: str) -> None:
    assert getattr(FULL, name) != getattr(InferenceConfig(), name), "FULL sets every field"
    over = InferenceConfig(**{name: getattr(FULL, name)})
    assert InferenceConfig().overlaid(over) == over
    assert FULL.overlaid(InferenceConfig()) == FULL


@pytest.mark.parametrize("zero", [{"temperature": 0.0}, {"seed": 0}, {"parallel_tool_calls": False}])
def test_overlay_takes_a_zero_for_a_value(zero: dict[str, Any]) -> None:
    assert FULL.overlaid(InferenceConfig(**zero)) == replace(FULL, **zero)


def test_usage_adds_up() -> None:
    assert Usage(1, 2, 3, 4) + Usage(10, 20, 30, 40) == Usage(11, 22, 33, 44)


def test_usage_stays_what_the_contract_can_tell() -> None:
    most = Usage(TOKENS_MAX, TOKENS_MAX, TOKENS_MAX, TOKENS_MAX)
    assert most + Usage(1, 0, 2, TOKENS_MAX) == most
    assert Usage(-1, 2**70, 0, 0) == Usage(0, TOKENS_MAX, 0, 0)

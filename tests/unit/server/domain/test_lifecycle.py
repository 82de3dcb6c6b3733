from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from turnwire_server.domain.errors import Code, Failure
from turnwire_server.domain.event import (
    Cancelled,
    Failed,
    InferenceAttemptLost,
    InferenceFinished,
    InferenceQueued,
    InferenceStarted,
    Outcome,
    Succeeded,
    TurnClosed,
    TurnOpened,
)
from turnwire_server.domain.inference import (
    WAITING_STATES,
    FinishClass,
    IllegalTransition,
    Inference,
    InferenceConfig,
    InferenceState,
    Usage,
)
from turnwire_server.domain.lifecycle import (
    begin,
    commit,
    deadline_outcome,
    end,
    enqueue,
    event_of,
    hand_back,
    release,
    request_cancel,
)

NOW = datetime(2026, 11, 20, tzinfo=UTC)
LATER = NOW + timedelta(seconds=5)
NEW = Inference("s", "i", InferenceState.QUEUED, NOW, profile="p", config=InferenceConfig(model="m"))
OPENED = TurnOpened(4, 9, 3)
FAILURE = Failure("ENGINE_FAILED", Code.INTERNAL, "it crashed", {"engine": "scripted"})


def test_enqueue() -> None:
    queued = enqueue(NEW, 2, NOW)
    assert queued.inference == replace(NEW, queue_position=2)
    assert queued.events == (event_of(NEW, InferenceQueued(2), NOW),)


def test_event_of_the_present_attempt() -> None:
    event = event_of(replace(NEW, attempt=3), InferenceQueued(1), NOW, "e")
    assert (event.session_id, event.inference_id, event.attempt, event.entity, event.sequence) == ("s", "i", 3, "e", 0)


def test_begin_opens_the_turn() -> None:
    begun = begin(enqueue(NEW, 1, NOW).inference, "scripted", OPENED, LATER)
    assert begun.inference == replace(NEW, state=InferenceState.RUNNING, start_time=LATER, turn_index=4)
    assert [event.payload for event in begun.events] == [InferenceStarted("scripted", "p", "m"), OPENED]


def test_begin_again_keeps_turn_and_start() -> None:
    queued = replace(NEW, start_time=NOW, turn_index=4, attempt=1)
    begun = begin(queued, "scripted", None, LATER)
    assert (begun.inference.start_time, begun.inference.turn_index) == (NOW, 4)
    assert [event.payload for event in begun.events] == [InferenceStarted("scripted", "p", "m")]
    assert begun.events[0].attempt == 1


def test_begin_of_what_runs_is_illegal() -> None:
    with pytest.raises(IllegalTransition):
        begin(replace(NEW, state=InferenceState.RUNNING), "scripted", None, NOW)


def test_first_cancel_request_stays() -> None:
    first = request_cancel(NEW, "first", NOW)
    assert (first.cancel_requested_time, first.cancel_reason, first.state) == (NOW, "first", InferenceState.QUEUED)
    assert request_cancel(first, "second", LATER) == first


@pytest.mark.parametrize("state", [state for state in InferenceState if state.is_terminal])
def test_cancel_request_after_the_end_changes_nothing(state: InferenceState) -> None:
    ended = replace(NEW, state=state)
    assert request_cancel(ended, "late", LATER) == ended


RUNNING = replace(NEW, state=InferenceState.RUNNING, start_time=NOW, turn_index=4, attempt=1)


@pytest.mark.parametrize("then", [InferenceState.RUNNING, *sorted(WAITING_STATES)])
def test_commit_adds_usage_up(then: InferenceState) -> None:
    first = commit(RUNNING, Usage(1, 2, 3, 4), "m-1", InferenceState.RUNNING)
    assert first == replace(RUNNING, usage=Usage(1, 2, 3, 4), model="m-1")
    second = commit(first, Usage(10, 20, 30, 40), "", then)
    assert second == replace(RUNNING, state=then, usage=Usage(11, 22, 33, 44), model="m-1")
    assert second.is_active


def test_commit_names_the_last_model() -> None:
    assert commit(replace(RUNNING, model="m-1"), Usage(), "m-2", InferenceState.RUNNING).model == "m-2"


@pytest.mark.parametrize("state", [state for state in InferenceState if state is not InferenceState.RUNNING])
def test_only_what_runs_begins_to_wait(state: InferenceState) -> None:
    for then in WAITING_STATES:
        with pytest.raises(IllegalTransition):
            commit(replace(RUNNING, state=state), Usage(), "", then)


@pytest.mark.parametrize("state", sorted(WAITING_STATES))
def test_release(state: InferenceState) -> None:
    released = release(replace(RUNNING, state=state), LATER)
    assert released.inference == replace(RUNNING, state=InferenceState.QUEUED, queue_position=1)
    assert released.inference.is_active
    assert released.events == (event_of(RUNNING, InferenceQueued(1), LATER),)


@pytest.mark.parametrize("is_loss", [False, True], ids=["drained", "lost"])
def test_hand_back(is_loss: bool) -> None:
    back = hand_back(RUNNING, 7, LATER, is_loss=is_loss)
    attempt = 2 if is_loss else 1
    assert back.inference == replace(RUNNING, state=InferenceState.QUEUED, queue_position=1, attempt=attempt)
    assert back.inference.is_active
    [event] = back.events
    assert event.payload == InferenceAttemptLost(1, 7, handed_back=not is_loss)
    assert event.attempt == 1  # it is told of the attempt that is over


@pytest.mark.parametrize("state", [InferenceState.QUEUED, *(state for state in InferenceState if state.is_terminal)])
def test_what_does_not_run_is_not_handed_back(state: InferenceState) -> None:
    with pytest.raises(IllegalTransition):
        hand_back(replace(RUNNING, state=state), 7, LATER, is_loss=True)


@pytest.mark.parametrize(
    ("outcome", "state", "finish_class"),
    [
        (Succeeded(FinishClass.MAX_TOKENS), InferenceState.SUCCEEDED, FinishClass.MAX_TOKENS),
        (Failed(FAILURE), InferenceState.FAILED, FinishClass.ERROR),
        (Cancelled("why"), InferenceState.CANCELLED, FinishClass.INTERRUPTED),
    ],
    ids=["succeeded", "failed", "cancelled"],
)
def test_end(outcome: Outcome, state: InferenceState, finish_class: FinishClass) -> None:
    running = begin(request_cancel(NEW, "why", NOW), "scripted", OPENED, NOW).inference
    ended = end(running, outcome, Usage(1, 2), LATER, event_count=10, block_count=11, model="m-2")
    assert ended.inference == replace(
        running,
        state=state,
        end_time=LATER,
        usage=Usage(1, 2),
        model="m-2",
        finish_class=finish_class,
        error=FAILURE if state is InferenceState.FAILED else None,
    )
    assert [event.payload for event in ended.events] == [
        TurnClosed(4, 11),
        InferenceFinished(outcome, Usage(1, 2), 12),
    ]


def test_end_adds_to_the_usage_of_the_steps() -> None:
    committed = replace(RUNNING, usage=Usage(1, 2, 3, 4), model="m-1")
    ended = end(committed, Cancelled(), Usage(10, 20, 30, 40), LATER, event_count=1, block_count=1)
    assert (ended.inference.usage, ended.inference.model) == (Usage(11, 22, 33, 44), "m-1")
    assert ended.events[-1].payload == InferenceFinished(Cancelled(), Usage(11, 22, 33, 44), 3)


def test_end_without_a_turn_has_one_event() -> None:
    ended = end(NEW, Cancelled(), Usage(), NOW, event_count=1, block_count=0)
    assert [event.payload for event in ended.events] == [InferenceFinished(Cancelled(), Usage(), 2)]


def test_end_of_a_queued_inference_is_no_success() -> None:
    with pytest.raises(IllegalTransition):
        end(NEW, Succeeded(FinishClass.COMPLETED), Usage(), NOW, event_count=1, block_count=0)


@pytest.mark.parametrize("state", [state for state in InferenceState if state.is_terminal])
def test_nothing_ends_twice(state: InferenceState) -> None:
    with pytest.raises(IllegalTransition):
        end(replace(NEW, state=state), Failed(FAILURE), Usage(), NOW, event_count=1, block_count=0)


@pytest.mark.parametrize(
    ("timeout", "told"),
    [
        (timedelta(days=30), "2592000s"),
        (timedelta(days=12, microseconds=1), "1036800.000001s"),
        (timedelta(seconds=1.5), "1.5s"),
        (timedelta(microseconds=1), "0.000001s"),
    ],
)
def test_the_timeout_that_passed_is_told_without_exponents(timeout: timedelta, told: str) -> None:
    failed = deadline_outcome(replace(NEW, deadline_time=NOW + timeout))
    assert failed.error.metadata == {"timeout": told}

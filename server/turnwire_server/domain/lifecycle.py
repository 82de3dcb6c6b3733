"""What each transition of an inference changes, and the events that tell of it. Pure: every store calls these.

A store loads the inference, calls one of these inside its transaction, and writes the inference and appends the
events it gets back. So log and state cannot disagree, and all stores behave alike.
"""

from dataclasses import dataclass, replace
from datetime import datetime

from turnwire_server.domain.errors import DeadlineExceededError
from turnwire_server.domain.event import (
    Cancelled,
    Event,
    Failed,
    InferenceAttemptLost,
    InferenceFinished,
    InferenceQueued,
    InferenceStarted,
    Outcome,
    Payload,
    Succeeded,
    TurnClosed,
    TurnOpened,
)
from turnwire_server.domain.inference import (
    WAITING_STATES,
    FinishClass,
    IllegalTransition,
    Inference,
    InferenceState,
    Usage,
    advance,
)

_OUTCOMES = {
    Succeeded: InferenceState.SUCCEEDED,
    Failed: InferenceState.FAILED,
    Cancelled: InferenceState.CANCELLED,
}


@dataclass(frozen=True, slots=True)
class Transition:
    """An inference after a move, and the events that tell of it."""

    inference: Inference
    events: tuple[Event, ...]


def event_of(inference: Inference, payload: Payload, now: datetime, entity: str = "") -> Event:
    """Return an event of the inference's present attempt."""
    return Event(inference.session_id, inference.inference_id, now, payload, entity, inference.attempt)


def enqueue(inference: Inference, queue_position: int, now: datetime) -> Transition:
    """A new inference enters the line."""
    inference = replace(inference, queue_position=queue_position)
    return Transition(inference, (event_of(inference, InferenceQueued(queue_position), now),))


def begin(inference: Inference, engine: str, opened: TurnOpened | None, now: datetime) -> Transition:
    """An attempt begins; `opened` tells of the turn to open, None when it is open already."""
    started = replace(
        advance(inference, InferenceState.RUNNING),
        start_time=inference.start_time or now,
        turn_index=opened.index if opened else inference.turn_index,
    )
    events = [event_of(started, InferenceStarted(engine, started.profile, started.config.model), now)]
    if opened:
        events.append(event_of(started, opened, now))
    return Transition(started, tuple(events))


def request_cancel(inference: Inference, reason: str, now: datetime) -> Inference:
    """A cancel is requested; the first request's time and reason stay."""
    if inference.state.is_terminal or inference.cancel_requested_time is not None:
        return inference
    return replace(inference, cancel_requested_time=now, cancel_reason=reason)


def deadline_outcome(inference: Inference) -> Failed:
    """Return how an inference ends whose deadline has passed."""
    deadline = inference.deadline_time or inference.create_time
    seconds = f"{(deadline - inference.create_time).total_seconds():.6f}".rstrip("0").rstrip(".")
    return Failed(DeadlineExceededError(timeout=f"{seconds}s").failure())


def commit(inference: Inference, usage: Usage, model: str, then: InferenceState) -> Inference:
    """A step is committed; `then` is RUNNING, or where the inference waits for its client."""
    if then is not InferenceState.RUNNING and then not in WAITING_STATES:
        msg = f"a step of inference {inference.inference_id} cannot lead to {then.name}"
        raise IllegalTransition(msg)
    moved = inference if then is InferenceState.RUNNING else advance(inference, then)
    return replace(moved, usage=inference.usage + usage, model=model or inference.model)


def release(inference: Inference, now: datetime) -> Transition:
    """A client that was waited for has answered: the inference is the first in line."""
    released = replace(advance(inference, InferenceState.QUEUED), queue_position=1)
    return Transition(released, (event_of(released, InferenceQueued(1), now),))


def hand_back(inference: Inference, holds_through: int, now: datetime, *, is_loss: bool) -> Transition:
    """An attempt is over before its inference is: what it told after the sequence `holds_through` is void."""
    lost = InferenceAttemptLost(inference.attempt, holds_through, handed_back=not is_loss)
    queued = replace(advance(inference, InferenceState.QUEUED), queue_position=1, attempt=inference.attempt + is_loss)
    return Transition(queued, (event_of(inference, lost, now),))


def end(
    inference: Inference,
    outcome: Outcome,
    usage: Usage,
    now: datetime,
    *,
    event_count: int,
    block_count: int,
    model: str = "",
) -> Transition:
    """An inference ends. `event_count` counts its events so far, `block_count` the blocks of its turn, if it has one.

    `usage` is what was used since the last step. The reason of a cancel is the one that came with the request.
    """
    if isinstance(outcome, Cancelled):
        outcome = Cancelled(inference.cancel_reason)
    ended = replace(
        advance(inference, _OUTCOMES[type(outcome)]),
        end_time=now,
        usage=inference.usage + usage,
        model=model or inference.model,
        finish_class=_finish_class(outcome),
        error=outcome.error if isinstance(outcome, Failed) else None,
    )
    events: list[Event] = []
    if ended.turn_index is not None:
        events.append(event_of(ended, TurnClosed(ended.turn_index, block_count), now))
    finished = InferenceFinished(outcome, ended.usage, event_count + len(events) + 1)
    events.append(event_of(ended, finished, now))
    return Transition(ended, tuple(events))


def _finish_class(outcome: Outcome) -> FinishClass:
    match outcome:
        case Succeeded(finish_class):
            return finish_class
        case Failed():
            return FinishClass.ERROR
        case Cancelled():
            return FinishClass.INTERRUPTED

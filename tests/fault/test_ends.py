"""What is checked of inferences that ended: each of these checks has a history here that only it refuses."""

from typing import Any

import pytest

from fault import ends
from fault.histories import (
    CANCELLED,
    FAILED,
    SUCCEEDED,
    History,
    asked,
    inference,
    lost,
    silent_assertions,
    story,
    succeeded,
    turn,
)
from fault.ledger import Asked
from fault.plays import Part, Play
from turnwire.v1 import error_reason_pb2 as reasons
from turnwire.v1 import inference_pb2, turn_pb2
from turnwire.v1.event_pb2 import Event, InferenceFinished, InferenceStarted
from turnwire.v1.inference_pb2 import Inference

PARTS = (Part("reasoning", "hmm"), Part("llm_text", "hello"))
HANG = Play("hang", PARTS, is_endless=True)


def test_a_whole_history_passes() -> None:
    ends.check_end_told(succeeded(), story())
    ends.check_attempts(inference(), story(), 0)
    ends.check_turn_told(turn(("llm_text", "hello")), story())
    ends.check_output(PARTS, SUCCEEDED, turn(("reasoning", "hmm"), ("llm_text", "hello")))
    ends.check_output(PARTS, FAILED, turn(("reasoning", "h")))
    ends.check_output(PARTS, CANCELLED, turn())


@pytest.mark.parametrize(
    ("ended", "end_count"),
    [
        (asked(succeeded()), 0),
        (asked(lost()), 1),
        (asked(lost(attempts_max=3)), 3),
        (asked(inference(state=CANCELLED, finish_class=inference_pb2.FINISH_CLASS_INTERRUPTED), cancel_count=1), 0),
    ],
    ids=["succeeded", "lost", "lost three times", "cancelled"],
)
def test_an_end_that_something_explains_passes(ended: Asked, end_count: int) -> None:
    ends.check_outcome(ended, end_count, is_cancel_kept=False)


def test_a_cancel_is_kept_by_one_that_is_cancelled_by_the_next_server_or_overdue_there() -> None:
    cancelled = inference(state=CANCELLED, finish_class=inference_pb2.FINISH_CLASS_INTERRUPTED)
    ends.check_outcome(asked(cancelled, cancel_count=1), 1, is_cancel_kept=True)
    overdue = inference(state=FAILED, finish_class=inference_pb2.FINISH_CLASS_ERROR)
    overdue.error.reason = reasons.ERROR_REASON_DEADLINE_EXCEEDED
    play = Play("overdue", PARTS, state=FAILED, reason=reasons.ERROR_REASON_DEADLINE_EXCEEDED)
    ends.check_outcome(asked(overdue, play), 1, is_cancel_kept=True)


# --- broken histories ---------------------------------------------------------------------------------


def _end_told(now: Inference, **changed: Any) -> None:
    log = story()
    log[-1].inference_finished.MergeFrom(InferenceFinished(**changed))
    ends.check_end_told(now, log)


def _outcome(seen: Inference, end_count: int = 0, *, is_cancel_kept: bool = False, play: Play | None = None) -> None:
    ends.check_outcome(asked(seen, play), end_count, is_cancel_kept=is_cancel_kept)


def _attempts(attempts_max: int, *attempts: int) -> None:
    started = [Event(attempt=attempt, inference_started=InferenceStarted()) for attempt in attempts]
    ends.check_attempts(inference(attempts_max=attempts_max), started, 0)


def _cancelled(cancel_count: int, finish_class: inference_pb2.FinishClass.ValueType) -> None:
    seen = inference(state=CANCELLED, finish_class=finish_class)
    ends.check_outcome(asked(seen, cancel_count=cancel_count), 0, is_cancel_kept=False)


HISTORIES: dict[str, History] = {
    "cancelled by nobody": (
        "Terminal: echo inference-1 of session session is CANCELLED, and nobody",
        lambda: _cancelled(0, inference_pb2.FINISH_CLASS_INTERRUPTED),
    ),
    "cancelled and completed": (
        "Terminal: echo inference-1 of session session is cancelled:",
        lambda: _cancelled(1, inference_pb2.FINISH_CLASS_COMPLETED),
    ),
    "lost without a kill": (
        "Terminal: echo inference-1 of session session lost its attempts, with 0",
        lambda: _outcome(lost()),
    ),
    "lost too early": (
        "Terminal: echo inference-1 of session session lost its attempts, with 2",
        lambda: _outcome(lost(attempts_max=3), 2),
    ),
    "lost with its cancel": (
        "Durable: echo inference-1 of session session ended with",
        lambda: _outcome(lost(), 1, is_cancel_kept=True),
    ),
    "succeeded after its cancel was forgotten": (
        "Durable: echo inference-1 of session session ended with",
        lambda: _outcome(succeeded(), 1, is_cancel_kept=True),
    ),
    "ended in another way": (
        "Terminal: echo inference-1 of session session ended with",
        lambda: _outcome(succeeded(finish_class=inference_pb2.FINISH_CLASS_MAX_TOKENS)),
    ),
    "ended by itself": (
        "Terminal: hang inference-1 of session session ended by itself",
        lambda: _outcome(succeeded(), play=HANG),
    ),
    "ended in the log alone": ("Terminal: inference-1 ended at 7 of the log", lambda: _end_told(inference())),
    "ended otherwise in the log": ("Terminal: session_id", lambda: _end_told(succeeded(), cancelled={})),
    "another error in the log": ("Terminal: session_id", lambda: _end_told(lost(), failed={"error": {}})),
    "another usage in the log": ("Terminal: session_id", lambda: _end_told(succeeded(), usage={"output_tokens": 1})),
    "another end of the log": ("Gapless: session_id", lambda: _end_told(succeeded(last_sequence=6))),
    "attempt that was left out": ("Terminal: the attempts of inference-1 were [0, 2]", lambda: _attempts(2, 0, 2)),
    "attempt that was not counted": (
        "Terminal: the attempts of inference-1 were [0, 1, 1], with 0 stops",
        lambda: _attempts(3, 0, 1, 1),
    ),
    "attempt too many": ("Terminal: inference-1 had attempt 1 of 1", lambda: _attempts(1, 0, 1)),
    # turns
    "open turn of an ended inference": (
        "Terminal: turn 3 is not closed",
        lambda: ends.check_turn_told(turn(("llm_text", "hello"), state=turn_pb2.TURN_STATE_OPEN), story()),
    ),
    "turn that lost text": (
        "Durable: turn 3 has {'b1': ('hell', True)}",
        lambda: ends.check_turn_told(turn(("llm_text", "hell")), story()),
    ),
    "half of an output": (
        "Unique: turn 3 has",
        lambda: ends.check_output(PARTS, SUCCEEDED, turn(("reasoning", "hmm"))),
    ),
    "output with a hole": (
        "Unique: turn 3 has",
        lambda: ends.check_output(PARTS, FAILED, turn(("reasoning", "h"), ("llm_text", "hello"))),
    ),
    "output twice": (
        "Unique: turn 3 has",
        lambda: ends.check_output(
            PARTS, FAILED, turn(("reasoning", "hmm"), ("llm_text", "hello"), ("llm_text", "hello"))
        ),
    ),
}


@pytest.mark.parametrize("name", HISTORIES)
def test_what_is_broken_is_refused(name: str) -> None:
    message, check = HISTORIES[name]
    with pytest.raises(AssertionError) as refused:
        check()
    assert str(refused.value).startswith(message)


def test_every_assertion_has_a_history() -> None:
    """An assertion that no history makes fail would be one that nobody knows to work."""
    assert silent_assertions(ends, HISTORIES.values()) == []

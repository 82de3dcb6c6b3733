"""What answers, and silence, make of an inference that waits."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from turnwire_server.domain.errors import (
    InferenceNotWaitingError,
    InvalidFieldError,
    PauseNotFoundError,
    RequestError,
    ToolCallNotPendingError,
)
from turnwire_server.domain.event import (
    DebuggerResumed,
    Failed,
    Payload,
    ToolDone,
    ToolResult,
    ToolsRequired,
)
from turnwire_server.domain.inference import Inference, InferenceState
from turnwire_server.domain.session import PauseAction
from turnwire_server.domain.tool import ToolApproval, ToolCall, ToolDenial, ToolError, ToolOutcome, ToolUse
from turnwire_server.domain.turn import Block
from turnwire_server.runtime.answers import (
    REPLACED_BYTES_MAX,
    Answering,
    decide_answers,
    decide_release,
    decide_silence,
)
from turnwire_server.runtime.checkpoint import (
    CallState,
    Checkpoint,
    Next,
    Pause,
    PlannedCall,
    decode_checkpoint,
    encode_checkpoint,
)
from turnwire_server.stores.base import Amendment, Waiting
from turnwire_server.wire.event import decode_frames, encode_event, stamp_frame

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LATER = NOW + timedelta(seconds=1)
ANSWERING = Answering(NOW, encode_event)
CALLS = (
    PlannedCall("done", "read", CallState.SETTLED),
    PlannedCall("mine", "ask", CallState.CLIENT, CallState.CLIENT),
    PlannedCall("delete", "delete", CallState.APPROVAL),
    PlannedCall("sign", "sign", CallState.APPROVAL, CallState.CLIENT),
)
AT = Checkpoint(Next.TOOLS, 2, CALLS)
PAUSED = Checkpoint(Next.ENGINE, 2, pause=Pause("i.3", "after_tools", "", NOW, LATER, PauseAction.CONTINUE))


def _waiting(checkpoint: Checkpoint, state: InferenceState = InferenceState.WAITING_FOR_TOOLS) -> Waiting:
    return Waiting(Inference("s", "i", state, NOW, attempt=1), encode_checkpoint(checkpoint))


def _told(events: Sequence[bytes]) -> list[tuple[Payload, str]]:
    decoded = [event for body in events for event in decode_frames(stamp_frame(body, 1))]
    assert {(event.session_id, event.inference_id, event.attempt) for event in decoded} <= {("s", "i", 1)}
    return [(event.payload, event.entity) for event in decoded]


def _states(amendment: Amendment) -> dict[str, CallState]:
    return {call.id: call.state for call in decode_checkpoint(amendment.checkpoint).calls}


def _answer(*outcomes: ToolOutcome, checkpoint: Checkpoint = AT) -> Amendment:
    return decide_answers(_waiting(checkpoint), outcomes, ANSWERING)


def test_a_part_of_the_answers_is_kept() -> None:
    amendment = _answer(ToolOutcome("mine", '{"a":1}'))
    use = ToolUse("mine", '{"a":1}')
    assert amendment.blocks == (Block("", use, "tool"),)
    assert _told(amendment.events) == [(ToolResult(use), "mine"), (ToolDone(), "mine")]
    assert _states(amendment) == {
        "done": CallState.SETTLED,
        "mine": CallState.SETTLED,
        "delete": CallState.APPROVAL,
        "sign": CallState.APPROVAL,
    }
    assert not amendment.is_released


def test_the_last_answer_releases() -> None:
    at = replace(AT, calls=CALLS[:2], answer_time=LATER)
    error = ToolError("no", "mine")
    amendment = _answer(ToolOutcome("mine", error), checkpoint=at)
    assert amendment.is_released
    assert amendment.blocks == (Block("", ToolUse("mine", error), "tool"),)
    assert decode_checkpoint(amendment.checkpoint).answer_time is None


def test_what_is_approved_is_executed_by_whom_it_belongs_to() -> None:
    amendment = _answer(ToolOutcome("delete", ToolApproval('{"x":1}')), ToolOutcome("sign", ToolApproval()))
    calls = {call.id: call for call in decode_checkpoint(amendment.checkpoint).calls}
    assert (calls["delete"].state, calls["delete"].args) == (CallState.SERVER, '{"x":1}')
    assert (calls["sign"].state, calls["sign"].args) == (CallState.CLIENT, None)
    assert amendment.blocks == ()
    required = ToolsRequired((ToolCall("mine", "ask"), ToolCall("sign", "sign")), ())
    assert _told(amendment.events) == [(required, "")]
    assert not amendment.is_released


def test_an_approval_that_leaves_others_waiting_is_told() -> None:
    amendment = _answer(ToolOutcome("delete", ToolApproval()))
    assert _told(amendment.events) == [(ToolsRequired((ToolCall("mine", "ask"),), (ToolCall("sign", "sign"),)), "")]


def test_the_client_is_told_the_arguments_that_were_approved() -> None:
    amendment = _answer(ToolOutcome("sign", ToolApproval('{"q":2}')))
    calls = ToolCall("mine", "ask"), ToolCall("sign", "sign", '{"q":2}')
    assert _told(amendment.events) == [(ToolsRequired(calls, (ToolCall("delete", "delete"),)), "")]


def test_approved_arguments_have_to_fit_into_one_event() -> None:
    def approval(size: int) -> ToolApproval:
        return ToolApproval('{"q":"%s"}' % ("x" * (size - len('{"q":""}'))))

    assert not _answer(ToolOutcome("sign", approval(REPLACED_BYTES_MAX))).is_released
    with pytest.raises(InvalidFieldError, match=r"outcomes.approved.args: .* 32769 bytes, more than 32768"):
        _answer(ToolOutcome("sign", approval(REPLACED_BYTES_MAX + 1)))
    assert not _answer(ToolOutcome("delete", approval(REPLACED_BYTES_MAX + 1))).is_released  # the server has them


def test_what_is_denied_is_an_error_to_the_model() -> None:
    amendment = _answer(ToolOutcome("delete", ToolDenial("too dangerous")), ToolOutcome("sign", ToolDenial()))
    assert [block.kind for block in amendment.blocks] == [
        ToolUse("delete", ToolError("too dangerous", "denied")),
        ToolUse("sign", ToolError("the call was not approved", "denied")),
    ]
    assert not amendment.is_released


@pytest.mark.parametrize(
    ("outcomes", "refused"),
    [
        ([ToolOutcome("done", "1")], "done"),
        ([ToolOutcome("nothing", "1")], "nothing"),
        ([ToolOutcome("delete", "1")], "delete"),
        ([ToolOutcome("mine", ToolApproval())], "mine"),
        ([ToolOutcome("mine", ToolDenial())], "mine"),
        ([ToolOutcome("mine", "1"), ToolOutcome("z", "1"), ToolOutcome("done", ToolError())], "done,z"),
    ],
)
def test_an_answer_that_nobody_waits_for_refuses_all(outcomes: list[ToolOutcome], refused: str) -> None:
    with pytest.raises(ToolCallNotPendingError) as caught:
        _answer(*outcomes)
    assert caught.value.metadata == {"inference_id": "i", "tool_calls": refused}


def test_a_pause_takes_no_answers() -> None:
    with pytest.raises(InferenceNotWaitingError) as caught:
        decide_answers(_waiting(PAUSED, InferenceState.PAUSED), [ToolOutcome("mine", "1")], ANSWERING)
    assert caught.value.metadata == {"inference_id": "i", "state": "PAUSED"}


def test_silence_is_answered_with_errors_once_it_is_time() -> None:
    waiting = _waiting(replace(AT, answer_time=LATER))
    assert decide_silence(waiting, ANSWERING) == Amendment(waiting.checkpoint, is_released=False)
    amendment = decide_silence(waiting, replace(ANSWERING, now=LATER))
    late = ToolError("nobody answered in time", "timeout")
    assert [block.kind for block in amendment.blocks] == [ToolUse(name, late) for name in ("mine", "delete", "sign")]
    assert set(_states(amendment).values()) == {CallState.SETTLED}
    assert amendment.is_released


def test_without_a_limit_silence_lasts() -> None:
    waiting = _waiting(AT)
    far = replace(ANSWERING, now=NOW + timedelta(days=10_000))
    assert decide_silence(waiting, far) == Amendment(waiting.checkpoint, is_released=False)


@pytest.mark.parametrize("action", [*PauseAction])
def test_a_pause_is_released(action: PauseAction) -> None:
    amendment = decide_release(_waiting(PAUSED, InferenceState.PAUSED), "i.3", action, ANSWERING)
    assert _told(amendment.events) == [(DebuggerResumed("i.3", action.name.lower()), "i.3")]
    following = decode_checkpoint(amendment.checkpoint)
    assert following == replace(PAUSED, pause=None, is_stepping_over=action is PauseAction.CONTINUE)
    if action is PauseAction.ABORT:
        assert isinstance(amendment.outcome, Failed)
        assert (amendment.outcome.error.reason, amendment.outcome.error.metadata) == ("STEP_ABORTED", {"pause": "i.3"})
    else:
        assert (amendment.outcome, amendment.is_released) == (None, True)


@pytest.mark.parametrize("action", [PauseAction.CONTINUE, PauseAction.ABORT])
def test_a_pause_ends_by_itself(action: PauseAction) -> None:
    assert PAUSED.pause
    waiting = _waiting(replace(PAUSED, pause=replace(PAUSED.pause, deadline_action=action)), InferenceState.PAUSED)
    assert decide_silence(waiting, ANSWERING) == Amendment(waiting.checkpoint, is_released=False)
    amendment = decide_silence(waiting, replace(ANSWERING, now=LATER))
    assert _told(amendment.events) == [(DebuggerResumed("i.3", "deadline"), "i.3")]
    assert (amendment.outcome is not None) is (action is PauseAction.ABORT)


@pytest.mark.parametrize(
    "waiting",
    [
        _waiting(
            replace(PAUSED, pause=replace(PAUSED.pause, id="i.4") if PAUSED.pause else None), InferenceState.PAUSED
        ),
        _waiting(AT),
    ],
)
def test_another_pause_is_not_released(waiting: Waiting) -> None:
    with pytest.raises(PauseNotFoundError) as caught:
        decide_release(waiting, "i.3", PauseAction.STEP, ANSWERING)
    assert isinstance(caught.value, RequestError)
    assert caught.value.metadata == {"pause": "i.3"}

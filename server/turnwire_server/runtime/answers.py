"""What the answers of a client, or its silence, make of an inference that waits for it. Pure: the store calls these."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from turnwire_server.domain.errors import (
    InferenceNotWaitingError,
    InvalidFieldError,
    PauseNotFoundError,
    StepAbortedError,
    ToolCallNotPendingError,
    Violation,
)
from turnwire_server.domain.event import DebuggerResumed, Failed, Payload, ToolDone, ToolResult, ToolsRequired
from turnwire_server.domain.inference import InferenceState
from turnwire_server.domain.lifecycle import event_of
from turnwire_server.domain.session import PauseAction
from turnwire_server.domain.tool import ToolApproval, ToolCall, ToolDenial, ToolError, ToolOutcome, ToolUse
from turnwire_server.domain.turn import Block
from turnwire_server.events.log import EncodeEvent
from turnwire_server.runtime.checkpoint import (
    CallState,
    Checkpoint,
    PlannedCall,
    decode_checkpoint,
    encode_checkpoint,
)
from turnwire_server.stores.base import Amendment, Waiting

# What arguments that approvals replaced may take, of all calls that the client executes: one event tells them. With as
# many calls as an engine call may make it stays below 256 KiB.
REPLACED_BYTES_MAX = 32 * 1024

# What a call waits for that the client has to do something about.
CLIENT_ACTS = (CallState.APPROVAL, CallState.CLIENT)

_ACTIONS = {PauseAction.CONTINUE: "continue", PauseAction.STEP: "step", PauseAction.ABORT: "abort"}


@dataclass(frozen=True, slots=True)
class Answering:
    """What every decision here works with: the time, and how an event is encoded."""

    now: datetime
    encode: EncodeEvent

    def events(self, waiting: Waiting, told: Sequence[tuple[Payload, str]]) -> tuple[bytes, ...]:
        """Return encoded events of an inference; `told` are payloads and their entities."""
        return tuple(self.encode(event_of(waiting.inference, what, self.now, entity)) for what, entity in told)


def tools_required(checkpoint: Checkpoint) -> ToolsRequired:
    """Return the event that tells what the client has to do."""
    return ToolsRequired(
        tuple(ToolCall(call.id, call.name, call.args or "") for call in checkpoint.pending(CallState.CLIENT)),
        tuple(ToolCall(call.id, call.name) for call in checkpoint.pending(CallState.APPROVAL)),
        checkpoint.answer_time,
    )


def decide_answers(waiting: Waiting, outcomes: Sequence[ToolOutcome], answering: Answering) -> Amendment:
    """Take a client's answers to pending tool calls.

    Errors: InferenceNotWaitingError, ToolCallNotPendingError; InvalidFieldError for approvals with too many arguments.
    """
    inference = waiting.inference
    if inference.state is not InferenceState.WAITING_FOR_TOOLS:
        raise InferenceNotWaitingError(inference_id=inference.inference_id, state=inference.state.name)
    checkpoint = decode_checkpoint(waiting.checkpoint)
    calls = {call.id: call for call in checkpoint.calls}
    refused = {outcome.tool_call for outcome in outcomes if not _fits(calls.get(outcome.tool_call), outcome)}
    if refused:
        raise ToolCallNotPendingError(inference_id=inference.inference_id, tool_calls=",".join(sorted(refused)))
    uses: list[ToolUse] = []
    for outcome in outcomes:
        calls[outcome.tool_call], use = _answer(calls[outcome.tool_call], outcome)
        uses += [use] if use else []
    following = replace(checkpoint, calls=tuple(calls.values()))
    _check_replaced(following)
    return _amend(waiting, following, uses, answering)


def _check_replaced(checkpoint: Checkpoint) -> None:
    size = sum(len((call.args or "").encode()) for call in checkpoint.pending(CallState.CLIENT))
    if size > REPLACED_BYTES_MAX:
        what = f"arguments for calls of the client have {size} bytes, more than {REPLACED_BYTES_MAX}; deny the calls"
        raise InvalidFieldError(Violation("outcomes.approved.args", what, "replaced_bytes_max"))


def _fits(call: PlannedCall | None, outcome: ToolOutcome) -> bool:
    is_decision = isinstance(outcome.outcome, ToolApproval | ToolDenial)
    return call is not None and call.state is (CallState.APPROVAL if is_decision else CallState.CLIENT)


def _answer(call: PlannedCall, outcome: ToolOutcome) -> tuple[PlannedCall, ToolUse | None]:
    match outcome.outcome:
        case ToolApproval(args):
            return replace(call, state=call.by, args=args or call.args), None
        case ToolDenial(reason):
            denied = ToolError(reason or "the call was not approved", "denied")
            return replace(call, state=CallState.SETTLED), ToolUse(call.id, denied)
        case answer:
            return replace(call, state=CallState.SETTLED), ToolUse(call.id, answer)


def decide_silence(waiting: Waiting, answering: Answering) -> Amendment:
    """Answer in the client's place if it has been silent for too long: with the deadline's action, or with errors."""
    checkpoint = decode_checkpoint(waiting.checkpoint)
    if pause := checkpoint.pause:
        is_due = pause.deadline_time <= answering.now
        return _release(waiting, pause.deadline_action, "deadline", answering) if is_due else _unchanged(waiting)
    if checkpoint.answer_time is None or checkpoint.answer_time > answering.now:
        return _unchanged(waiting)
    late = checkpoint.pending(*CLIENT_ACTS)
    silent = {call.id: ToolUse(call.id, ToolError("nobody answered in time", "timeout")) for call in late}
    calls = tuple(replace(call, state=CallState.SETTLED) if call.id in silent else call for call in checkpoint.calls)
    return _amend(waiting, replace(checkpoint, calls=calls), list(silent.values()), answering)


def decide_release(waiting: Waiting, pause_name: str, action: PauseAction, answering: Answering) -> Amendment:
    """Release a pause. Errors: PauseNotFoundError."""
    pause = decode_checkpoint(waiting.checkpoint).pause
    if pause is None or pause.id != pause_name or waiting.inference.state is not InferenceState.PAUSED:
        raise PauseNotFoundError(pause=pause_name)
    return _release(waiting, action, _ACTIONS[action], answering)


def _release(waiting: Waiting, action: PauseAction, told: str, answering: Answering) -> Amendment:
    checkpoint = decode_checkpoint(waiting.checkpoint)
    name = checkpoint.pause.id if checkpoint.pause else ""
    following = replace(
        checkpoint, pause=None, is_stepping_over=checkpoint.is_stepping_over or action is PauseAction.CONTINUE
    )
    return Amendment(
        encode_checkpoint(following),
        events=answering.events(waiting, [(DebuggerResumed(name, told), name)]),
        outcome=Failed(StepAbortedError(pause=name).failure()) if action is PauseAction.ABORT else None,
    )


def _amend(waiting: Waiting, checkpoint: Checkpoint, uses: Sequence[ToolUse], answering: Answering) -> Amendment:
    told: list[tuple[Payload, str]] = []
    for use in uses:
        told += [(ToolResult(use), use.tool_call), (ToolDone(), use.tool_call)]
    is_released = not checkpoint.pending(*CLIENT_ACTS)
    if not is_released and _has_approved(decode_checkpoint(waiting.checkpoint), checkpoint):
        told.append((tools_required(checkpoint), ""))
    if is_released:
        checkpoint = replace(checkpoint, answer_time=None)
    return Amendment(
        encode_checkpoint(checkpoint),
        blocks=tuple(Block("", use, "tool") for use in uses),
        events=answering.events(waiting, told),
        is_released=is_released,
    )


def _has_approved(before: Checkpoint, after: Checkpoint) -> bool:
    """Whether calls were approved: unlike other answers, no tool.result tells of that."""
    asked = {call.id for call in before.pending(CallState.APPROVAL)}
    return any(call.id in asked for call in after.pending(CallState.CLIENT, CallState.SERVER))


def _unchanged(waiting: Waiting) -> Amendment:
    return Amendment(waiting.checkpoint, is_released=False)

"""Violations of what the contract says of the answers of clients to tool calls."""

import json
from typing import Any

from turnwire.v1 import inference_pb2
from turnwire.v1 import inference_service_pb2 as pb
from turnwire.v1.tool_pb2 import ToolError, ToolOutcome, ToolUse
from violations.edits import alters, clears, maps, sets
from violations.exchange import Exchange, RefusalError
from violations.kinds import changes, changes_refusal, sends, takes
from violations.streams import changes_events
from violations.violation import violation

SUBMIT = "InferenceService.SubmitToolResults"
NOT_PENDING = "ErrorReason.ERROR_REASON_TOOL_CALL_NOT_PENDING"

WAITING = inference_pb2.INFERENCE_STATE_WAITING_FOR_TOOLS
RUNNING = inference_pb2.INFERENCE_STATE_RUNNING


async def answer_itself(exchange: Exchange, inference: Any, code: str) -> None:
    """Answer in the client's place what an inference waits for."""
    events = (await exchange.ask("ListEvents", session_id=inference.session_id)).events
    required = [event.tools_required for event in events if event.HasField("tools_required")][-1]
    outcomes = [ToolOutcome(tool_call=call.id, error=ToolError(code=code)) for call in required.calls]
    if outcomes:
        await exchange.ask("SubmitToolResults", inference_id=inference.inference_id, outcomes=outcomes)


async def wait_for_nobody(exchange: Exchange) -> Any:
    """Answer calls as soon as anybody sees that they wait."""
    response = await exchange.forward()
    if response.inference.state == WAITING:
        await answer_itself(exchange, response.inference, "failed")
    return response


async def take_all_or_refuse(exchange: Exchange) -> Any:
    """Refuse what does not answer all calls."""
    response = await exchange.forward()
    if response.pending_tool_calls:
        raise RefusalError.of("TOOL_CALL_NOT_PENDING", inference_id=exchange.request.inference_id)
    return response


async def record_what_fits(exchange: Exchange) -> Any:
    """Record the answers that fit although the request is refused."""
    request = exchange.request
    try:
        return await exchange.forward()
    except RefusalError as refusal:
        refused = refusal.metadata.get("tool_calls", "").split(",")
        rest = [each for each in request.outcomes if each.tool_call not in refused]
        if refusal.reason == "TOOL_CALL_NOT_PENDING" and rest:
            await exchange.ask("SubmitToolResults", inference_id=request.inference_id, outcomes=rest)
        raise


def settled_answers_are_taken(request: Any, response: Any) -> None:
    """Tell as answered what is."""
    del response.pending_tool_calls[:]
    response.pending_tool_calls.extend(each.tool_call for each in request.outcomes)


def once(request: Any) -> None:
    """Leave out the second answer to a call."""
    first = {each.tool_call: each for each in reversed(request.outcomes)}
    del request.outcomes[:]
    request.outcomes.extend(first.values())


def rewritten(text: str) -> str:
    """Return a JSON text as another program writes it."""
    return json.dumps(json.loads(text), separators=(" ,  ", "  : "))


def error_to_result(request: Any) -> None:
    """Make results of failures."""
    for outcome in request.outcomes:
        if outcome.HasField("error"):
            outcome.result = "null"


async def cancel_what_failed(exchange: Exchange) -> Any:
    """Cancel an inference of which a tool failed."""
    request = exchange.request
    if not any(outcome.HasField("error") for outcome in request.outcomes):
        return await exchange.forward()
    cancelled = await exchange.ask("Cancel", inference_id=request.inference_id)
    return pb.SubmitToolResultsResponse(inference=cancelled.inference)


VIOLATIONS = [
    violation(
        "tools-are-not-waited-for",
        [
            ("InferenceState.INFERENCE_STATE_WAITING_FOR_TOOLS", "It waits for SubmitToolResults."),
            ("ToolPlacement.TOOL_PLACEMENT_CLIENT", "The client executes it and answers with"),
        ],
        takes("Wait", wait_for_nobody),
    ),
    violation(
        "waiting-for-tools-is-told-as-running",
        ("Event.tools_required", "The client has to answer tool calls; the inference is WAITING"),
        changes(
            ("Wait", "GetInference"),
            maps("inference.state", lambda state: RUNNING if state == WAITING else state),
        ),
    ),
    violation(
        "answers-have-to-be-complete",
        (SUBMIT, "A part of the pending calls MAY be answered"),
        takes("SubmitToolResults", take_all_or_refuse),
    ),
    violation(
        "pending-calls-are-not-told",
        ("SubmitToolResultsResponse.pending_tool_calls", "The ids of the tool calls that are"),
        changes("SubmitToolResults", clears("pending_tool_calls")),
    ),
    violation(
        "settled-calls-are-told-as-pending",
        ("SubmitToolResultsResponse.pending_tool_calls", "The ids of the tool calls that are"),
        changes("SubmitToolResults", settled_answers_are_taken),
    ),
    violation(
        "answers-tell-of-no-inference",
        ("SubmitToolResultsResponse.inference", "The inference as it is now."),
        changes("SubmitToolResults", clears("inference")),
    ),
    violation(
        "tools-required-names-no-calls",
        [
            (SUBMIT, "The calls that wait are those of the newest tools.required"),
            ("ToolsRequired.calls", "The calls that wait for a result of the client."),
            ("ToolsRequired", "The client has to answer tool calls."),
        ],
        changes_events(clears("tools_required.calls")),
    ),
    violation(
        "answers-that-fit-are-recorded-all-the-same",
        [
            (SUBMIT, "Answers to all of them are taken in one step"),
            (SUBMIT, "Calls that are unknown, settled, or wait for an answer of the other kind are refused"),
            (NOT_PENDING, "Nothing was recorded."),
        ],
        takes("SubmitToolResults", record_what_fits),
    ),
    violation(
        "refused-calls-are-not-listed",
        (NOT_PENDING, "`tool_calls` lists them"),
        changes_refusal(
            "SubmitToolResults", "TOOL_CALL_NOT_PENDING", lambda refusal: refusal.metadata.update(tool_calls="all")
        ),
    ),
    violation(
        "second-answer-of-a-request-is-dropped",
        (SUBMIT, "A call that is answered twice in one request is INVALID_FIELD."),
        sends("SubmitToolResults", once),
    ),
    violation(
        "answers-forget-their-key",
        [
            (SUBMIT, "Idempotent by idempotency_key"),
            ("SubmitToolResultsRequest.idempotency_key", "Names this submission, so that a repeat"),
        ],
        sends("SubmitToolResults", clears("idempotency_key")),
    ),
    violation(
        "outcomes-name-another-call",
        ("ToolUse.tool_call", "The id of the ToolCall that this answers."),
        alters(ToolUse, sets("tool_call", "another")),
    ),
    violation(
        "results-are-written-anew",
        ("ToolUse.result", "The result as JSON text."),
        alters(ToolUse, maps("result", rewritten), lambda use: bool(use.result)),
    ),
    violation(
        "results-are-thrown-away",
        ("ToolOutcome.result", "The result as JSON text."),
        sends("SubmitToolResults", sets("outcomes.result", "null", lambda outcome: outcome.HasField("result"))),
    ),
    violation(
        "failed-tool-ends-the-inference",
        ("ToolUse.error", "A failed tool is data for the model"),
        takes("SubmitToolResults", cancel_what_failed),
    ),
    violation(
        "failures-become-results",
        ("ToolOutcome.error", "The failure."),
        sends("SubmitToolResults", error_to_result),
    ),
    violation(
        "failures-lose-their-code",
        ("ToolError.code", "A short word that a program may branch on."),
        alters(ToolError, clears("code")),
    ),
    violation(
        "omitted-results-are-not-marked",
        ("ToolResult.result_omitted", "Set when the event would be larger than 256 KiB"),
        changes_events(clears("tool_result.result_omitted")),
    ),
    violation(
        "omitted-results-are-there",
        ("ToolResult.use", "The answer, unless `result_omitted` is set"),
        changes_events(sets("tool_result.use.result", "1"), lambda event: event.tool_result.result_omitted),
    ),
]

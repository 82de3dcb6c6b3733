"""Violations of what the contract says of approvals."""

from typing import Any

from turnwire.v1.tool_pb2 import ToolApproval, ToolError, ToolOutcome
from violations.edits import alters, clears, maps, sets, tolerates
from violations.exchange import Exchange, RefusalError
from violations.kinds import changes, refuses, sends, takes
from violations.streams import changes_events, drops_events
from violations.tools import SUBMIT
from violations.violation import violation

ARGS = "ToolApproval.args"


def deny(request: Any) -> None:
    """Deny what is approved."""
    for outcome in request.outcomes:
        if outcome.HasField("approved"):
            outcome.denied.SetInParent()


def approve(request: Any) -> None:
    """Approve what is denied."""
    for outcome in request.outcomes:
        if outcome.HasField("denied"):
            outcome.approved.SetInParent()


async def results_approve(exchange: Exchange) -> Any:
    """Take a result for an approval as well."""
    request = exchange.request
    try:
        return await exchange.forward()
    except RefusalError as refusal:
        if refusal.reason != "TOOL_CALL_NOT_PENDING" or not (request.outcomes[0].result or request.outcomes[0].error):
            raise
        approvals = [ToolOutcome(tool_call=each.tool_call, approved=ToolApproval()) for each in request.outcomes]
        await exchange.ask("SubmitToolResults", inference_id=request.inference_id, outcomes=approvals)
        return await exchange.forward()


def other_args_in_the_turn(_: Any, response: Any) -> None:
    """Show the arguments of the approval in the turn."""
    for block in response.turn.blocks:
        if block.HasField("tool_call"):
            block.tool_call.args = '{"depth": 2}'


def is_second(event: Any) -> bool:
    """Whether an event tells of calls that were approved."""
    return bool(event.tools_required.calls) and not event.tools_required.approvals


VIOLATIONS = [
    violation(
        "calls-need-no-approval",
        [
            ("Tool.approval_required", "Whether a person has to approve each call"),
            ("ToolOutcome", "A call of the client's own tool that needs approval is approved first"),
        ],
        sends("StartInference", clears("overrides.tools.approval_required")),
    ),
    violation(
        "results-approve-as-well",
        ("ToolOutcome.outcome", "Exactly one is set; `result` and `error` answer a client-side call"),
        takes("SubmitToolResults", results_approve),
    ),
    violation(
        "approvals-come-with-arguments",
        ("ToolsRequired.approvals", "The calls that wait for approval, without their args."),
        changes_events(sets("tools_required.approvals.args", "{}")),
    ),
    violation(
        "approved-calls-are-denied",
        ("ToolOutcome.approved", "The call may be executed."),
        sends("SubmitToolResults", deny),
    ),
    violation(
        "denied-calls-are-executed",
        ("ToolOutcome.denied", "The call MUST NOT be executed."),
        sends("SubmitToolResults", approve),
    ),
    violation(
        "arguments-of-approvals-are-dropped",
        (ARGS, "Arguments to use instead of the model's"),
        sends("SubmitToolResults", clears("outcomes.approved.args")),
    ),
    violation(
        "turn-shows-the-arguments-of-the-approval",
        (ARGS, "The turn keeps the model's."),
        changes("Wait", other_args_in_the_turn),
    ),
    violation(
        "arguments-of-approvals-have-no-limit",
        (ARGS, "For a call that the client executes they come back"),
        tolerates("SubmitToolResults", lambda request: len(request.outcomes) > 1),
    ),
    violation(
        "required-calls-always-have-arguments",
        ("ToolsRequired.calls", "They have args only where an approval replaced"),
        changes_events(maps("tools_required.calls.args", lambda args: args or "{}")),
    ),
    violation(
        "approved-calls-are-not-told-again",
        ("ToolsRequired", "It comes again when calls were approved"),
        drops_events(is_second),
    ),
    violation(
        "denial-is-told-as-failure",
        [("ToolDenial", "The model sees it as a ToolError"), ("ToolError.code", "`denied` a person did not approve")],
        alters(ToolError, sets("code", "failed"), lambda error: error.code == "denied"),
    ),
    violation(
        "model-is-not-told-why",
        ("ToolDenial.reason", "Why, for the model."),
        sends("SubmitToolResults", clears("outcomes.denied.reason")),
    ),
    violation(
        "denial-has-to-say-why",
        ("ToolDenial.reason", "It MAY be empty."),
        refuses(
            "SubmitToolResults",
            "INVALID_FIELD",
            when=lambda request: any(each.HasField("denied") and not each.denied.reason for each in request.outcomes),
        ),
    ),
    violation(
        "approvals-are-taken-one-by-one",
        (SUBMIT, "A part of the pending calls MAY be answered"),
        refuses("SubmitToolResults", "TOOL_CALL_NOT_PENDING", when=lambda request: len(request.outcomes) == 1),
    ),
    violation(
        "approvals-without-arguments-take-them-away",
        (ARGS, "Empty: the model's."),
        sends("SubmitToolResults", maps("outcomes.approved.args", lambda args: args or "{}")),
    ),
]

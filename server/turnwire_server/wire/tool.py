"""Tools, calls and outcomes, to and from protobuf."""

from collections.abc import Iterable

from turnwire.v1 import tool_pb2 as pb
from turnwire_server.domain.errors import InvalidFieldError, Violation
from turnwire_server.domain.tool import (
    Tool,
    ToolApproval,
    ToolCall,
    ToolDenial,
    ToolError,
    ToolOutcome,
    ToolPlacement,
    ToolUse,
)
from turnwire_server.wire import json_text


def to_proto(tool: Tool) -> pb.Tool:
    """Return a Tool."""
    return pb.Tool(
        name=tool.name,
        description=tool.description,
        input_schema=tool.input_schema,
        placement=pb.ToolPlacement.ValueType(tool.placement),
        approval_required=tool.approval_required,
    )


def from_proto(message: pb.Tool) -> Tool:
    """Return a tool."""
    return Tool(
        message.name,
        message.description,
        message.input_schema,
        ToolPlacement(message.placement),
        message.approval_required,
    )


def call_to_proto(call: ToolCall) -> pb.ToolCall:
    """Return a ToolCall."""
    return pb.ToolCall(id=call.id, name=call.name, args=call.args)


def call_from_proto(message: pb.ToolCall) -> ToolCall:
    """Return a tool call."""
    return ToolCall(message.id, message.name, message.args)


def use_to_proto(use: ToolUse) -> pb.ToolUse:
    """Return a ToolUse."""
    if isinstance(use.outcome, ToolError):
        return pb.ToolUse(tool_call=use.tool_call, error=_error_to_proto(use.outcome))
    return pb.ToolUse(tool_call=use.tool_call, result=use.outcome)


def use_from_proto(message: pb.ToolUse) -> ToolUse:
    """Return a tool use. One without an outcome, as events may have it, gets an empty result."""
    if message.WhichOneof("outcome") == "error":
        return ToolUse(message.tool_call, _error_from_proto(message.error))
    return ToolUse(message.tool_call, message.result)


def outcome_to_proto(outcome: ToolOutcome) -> pb.ToolOutcome:
    """Return a ToolOutcome."""
    match outcome.outcome:
        case str() as result:
            return pb.ToolOutcome(tool_call=outcome.tool_call, result=result)
        case ToolError() as error:
            return pb.ToolOutcome(tool_call=outcome.tool_call, error=_error_to_proto(error))
        case ToolApproval(args):
            return pb.ToolOutcome(tool_call=outcome.tool_call, approved=pb.ToolApproval(args=args))
        case ToolDenial(reason):
            return pb.ToolOutcome(tool_call=outcome.tool_call, denied=pb.ToolDenial(reason=reason))


def outcome_from_proto(message: pb.ToolOutcome) -> ToolOutcome:
    """Return a client's answer to a tool call. The rules of the contract see to it that there is one."""
    match message.WhichOneof("outcome"):
        case "error":
            return ToolOutcome(message.tool_call, _error_from_proto(message.error))
        case "approved":
            return ToolOutcome(message.tool_call, ToolApproval(message.approved.args))
        case "denied":
            return ToolOutcome(message.tool_call, ToolDenial(message.denied.reason))
        case "result" | None:
            return ToolOutcome(message.tool_call, message.result)


def outcomes_from_proto(messages: Iterable[pb.ToolOutcome], path: str) -> tuple[ToolOutcome, ...]:
    """Return a client's answers, one per call; `path` is the field of the request that has them.

    Errors: InvalidFieldError for what the rules in the contract's options cannot say.
    """
    violations: list[Violation] = []
    outcomes = tuple(map(outcome_from_proto, messages))
    for position, each in enumerate(outcomes):
        place = f"{path}[{position}]"
        if isinstance(each.outcome, str):
            violations += json_text.value_violations(f"{place}.result", each.outcome)
        if isinstance(each.outcome, ToolApproval):
            violations += json_text.object_violations(f"{place}.approved.args", each.outcome.args)
        if each.tool_call in {before.tool_call for before in outcomes[:position]}:
            violations.append(Violation(f"{place}.tool_call", "must be unique", "outcomes.unique"))
    if violations:
        raise InvalidFieldError(*violations)
    return outcomes


def _error_to_proto(error: ToolError) -> pb.ToolError:
    return pb.ToolError(message=error.message, code=error.code)


def _error_from_proto(message: pb.ToolError) -> ToolError:
    return ToolError(message.message, message.code)

"""Violations of what the contract says of the tool calls that a model makes."""

from typing import Any

from turnwire.v1 import inference_pb2
from turnwire.v1.error_reason_pb2 import Error
from turnwire.v1.event_pb2 import Event
from turnwire.v1.inference_pb2 import Inference
from turnwire.v1.tool_pb2 import TOOL_PLACEMENT_CLIENT, TOOL_PLACEMENT_SERVER, ToolError
from violations.edits import alters, clears, cuts, drops, maps, sends_options, sets, tolerates
from violations.exchange import Exchange
from violations.kinds import changes, refuses, sends, takes
from violations.streams import changes_events
from violations.tools import WAITING, answer_itself
from violations.violation import violation

CHOICE = "InferenceConfig.tool_choice"
CALL_ID = "ToolCall.id"

MAX_ITERATIONS = inference_pb2.FINISH_CLASS_MAX_ITERATIONS


def second_call_has_the_first_id(event: Any) -> None:
    """Name the calls of an event alike."""
    for call in event.tools_required.calls:
        call.id = event.tools_required.calls[0].id


async def answer_the_second_time(exchange: Exchange) -> Any:
    """Hold each engine call to the choice: what comes after the first one is refused."""
    response = await exchange.forward()
    now = response.inference
    if now.state != WAITING or not now.config.tool_choice:
        return response
    count = exchange.state.get(now.inference_id, 0) + 1
    exchange.state[now.inference_id] = count
    if count > 1:
        await answer_itself(exchange, now, "not_allowed")
        response.inference.state = inference_pb2.INFERENCE_STATE_SUCCEEDED
    return response


async def never_the_same_id(exchange: Exchange) -> Any:
    """Give no id to calls of a later turn that a call of an earlier one had."""
    response = await exchange.forward()
    count = exchange.state.get(exchange.request.inference_id, 0)
    is_second = response.inference.turn_index == 1 and response.inference.state == WAITING
    exchange.state[exchange.request.inference_id] = count + 1
    if is_second:
        await answer_itself(exchange, response.inference, "failed")
    return response


def whole_args(script: Any) -> None:
    """Let the model write arguments that are an object."""
    for call in script.get("calls", ()):
        for step in call["steps"]:
            if "args" in step.get("tool_call", {}):
                step["tool_call"]["args"] = "{}"


def without_the_last_outcome(_: Any, response: Any) -> None:
    """Leave the calls of the last engine call without an outcome."""
    if response.inference.finish_class == MAX_ITERATIONS:
        del response.turn.blocks[-1:]


def more_iterations(request: Any) -> None:
    """Allow one engine call more than the client does."""
    if request.overrides.config.iterations_max:
        request.overrides.config.iterations_max += 1


def distinct_tools(request: Any) -> None:
    """Leave out tools whose name was there before."""
    first = {each.name: each for each in request.overrides.tools}
    del request.overrides.tools[:]
    request.overrides.tools.extend(first.values())


def describes_nothing(request: Any) -> None:
    """Leave out what describes tools of the server."""
    for tool in request.overrides.tools:
        if tool.placement == TOOL_PLACEMENT_SERVER:
            tool.ClearField("description")
            tool.ClearField("input_schema")


def serves_what_it_can(request: Any) -> None:
    """Take tools that say nothing of it for the server's own."""
    for tool in request.overrides.tools:
        if not tool.placement:
            tool.placement = TOOL_PLACEMENT_SERVER
            tool.ClearField("description")
            tool.ClearField("input_schema")


def ends_of_waiting_calls(_: Any, response: Any) -> None:
    """Tell of an end of each call that still waits when the inference ends."""
    ended = [event for event in response.events if event.HasField("inference_finished")]
    if ended and ended[-1].inference_finished.HasField("cancelled"):
        event = Event()
        event.CopyFrom(ended[-1])
        event.tool_done.SetInParent()
        response.events.insert(len(response.events) - 1, event)


VIOLATIONS = [
    violation(
        "calls-share-an-id",
        (CALL_ID, "The identity of the call within its inference."),
        changes_events(second_call_has_the_first_id),
    ),
    violation(
        "calls-lose-the-id-of-the-model",
        (CALL_ID, "It is the model's own id, if there is one"),
        changes_events(maps("tools_required.calls.id", lambda name: f"own-{name}")),
    ),
    violation(
        "calls-of-later-turns-are-not-waited-for",
        (CALL_ID, "A call of another turn MAY have the same"),
        takes("Wait", never_the_same_id),
    ),
    violation(
        "choice-is-not-looked-at",
        (CHOICE, "A call that the choice does not allow is refused"),
        sends("StartInference", clears("overrides.config.tool_choice")),
    ),
    violation(
        "what-is-not-allowed-is-told-as-unknown",
        ("ToolError.code", "`not_allowed` the tool was not offered"),
        alters(ToolError, sets("code", "unknown_tool"), lambda error: error.code == "not_allowed"),
    ),
    violation(
        "choice-is-for-every-engine-call",
        (CHOICE, "`required` and a name are for the first engine call"),
        takes("Wait", answer_the_second_time),
    ),
    violation(
        "unknown-tool-is-told-as-not-allowed",
        ("ToolError.code", "`unknown_tool` there is no such tool."),
        alters(ToolError, sets("code", "not_allowed"), lambda error: error.code == "unknown_tool"),
    ),
    violation(
        "somebody-is-told-to-execute-an-unknown-tool",
        ("ToolStart.placement", "UNSPECIFIED when nobody will."),
        changes_events(maps("tool_start.placement", lambda old: old or TOOL_PLACEMENT_CLIENT)),
    ),
    violation(
        "refused-calls-have-no-result",
        ("Event.tool_result", "A tool call was answered"),
        changes("ListEvents", drops("events", lambda event: event.HasField("tool_result"))),
    ),
    violation(
        "pending-calls-are-told-as-completed",
        ("FinishClass.FINISH_CLASS_TOOL_CALLS_PENDING", "The model asked for tools although none"),
        alters(
            Inference,
            sets("finish_class", inference_pb2.FINISH_CLASS_COMPLETED),
            lambda now: now.finish_class == inference_pb2.FINISH_CLASS_TOOL_CALLS_PENDING,
        ),
    ),
    violation(
        "broken-calls-are-executed",
        [
            ("ToolCall.args", "For an INCOMPLETE one it is what the model wrote"),
            ("Event.tool_done", "Without a tool.call before it, the arguments were cut"),
        ],
        sends_options(whole_args),
    ),
    violation(
        "last-tools-are-not-executed",
        ("InferenceConfig.iterations_max", "The tools that the last one asks for"),
        changes("Wait", without_the_last_outcome),
    ),
    violation(
        "loop-goes-on-too-long",
        ("InferenceConfig.iterations_max", "The most engine calls of the tool loop"),
        sends("StartInference", more_iterations),
    ),
    violation(
        "cut-loop-is-told-as-completed",
        ("FinishClass.FINISH_CLASS_MAX_ITERATIONS", "The tool loop was cut at iterations_max."),
        alters(
            Inference,
            sets("finish_class", inference_pb2.FINISH_CLASS_COMPLETED),
            lambda now: now.finish_class == MAX_ITERATIONS,
        ),
    ),
    violation(
        "waiting-calls-end-with-their-inference",
        ("Event.tool_done", "An inference that ends while a call waits tells none."),
        changes("ListEvents", ends_of_waiting_calls),
    ),
    violation(
        "one-of-two-tools-is-taken",
        [
            ("Overrides.tools", "Names MUST be unique"),
            ("Tool.name", "The name the model calls it by; unique"),
        ],
        sends("StartInference", distinct_tools),
    ),
    violation(
        "tools-beyond-the-most-are-dropped",
        ("Overrides.tools", "At most 128."),
        sends("StartInference", cuts("overrides.tools", 128)),
    ),
    violation(
        "tools-of-the-server-may-be-described",
        ("Tool.placement", "With SERVER a request defines no tool"),
        sends("StartInference", describes_nothing),
    ),
    violation(
        "tools-that-are-not-there-are-left-out",
        ("Tool.placement", "One that the profile has not ends the inference"),
        sends("StartInference", drops("overrides.tools", lambda tool: tool.placement == TOOL_PLACEMENT_SERVER)),
    ),
    violation(
        "missing-tools-are-not-named",
        ("ErrorReason.ERROR_REASON_TOOLS_UNAVAILABLE", "`source` names it."),
        alters(Error, lambda error: error.metadata.update(source="somewhere")),
    ),
    violation(
        "schemas-of-arguments-are-thrown-away",
        ("Tool.input_schema", "It is the model's provider that has to understand it"),
        sends("StartInference", clears("overrides.tools.input_schema")),
    ),
    violation(
        "schemas-of-arguments-have-to-be-there",
        ("Tool.input_schema", "Empty: an object without properties."),
        refuses(
            "StartInference",
            "INVALID_FIELD",
            when=lambda request: any(not tool.input_schema for tool in request.overrides.tools),
        ),
    ),
    violation(
        "tools-of-requests-are-the-servers",
        ("Tool.placement", "UNSPECIFIED means CLIENT for a tool that a request defines."),
        sends("StartInference", serves_what_it_can),
    ),
    violation(
        "nobody-is-told-to-execute-a-call",
        ("ToolStart.placement", "Who will execute it."),
        changes_events(clears("tool_start.placement")),
    ),
    violation(
        "descriptions-have-no-limit",
        ("Tool.description", "At most 16 KiB."),
        tolerates("StartInference", lambda request: any(tool.description for tool in request.overrides.tools)),
    ),
]

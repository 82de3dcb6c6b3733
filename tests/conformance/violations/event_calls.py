"""What events say of calls, inferences and turns, said otherwise. Those of texts are in violations.events."""

from typing import Any

from turnwire.v1 import tool_pb2
from violations.events import said_otherwise
from violations.streams import changes_events, is_a
from violations.violation import violation


def with_arguments(event: Any) -> None:
    """Have some of the arguments although they are left out."""
    if event.tool_call.args_omitted:
        event.tool_call.call.args = "{}"


def for_client(event: Any) -> None:
    """Say that the client will execute it."""
    event.tool_start.placement = tool_pb2.TOOL_PLACEMENT_CLIENT


def for_nobody(event: Any) -> None:
    """Say that nobody will execute it."""
    event.tool_start.placement = tool_pb2.TOOL_PLACEMENT_UNSPECIFIED


def without_outcome(event: Any) -> None:
    """End without saying how."""
    event.inference_finished.ClearField(event.inference_finished.WhichOneof("outcome"))


def done_instead(event: Any) -> None:
    """Say that nothing more happens to the call that waits."""
    event.entity = "call_1"
    event.tool_done.SetInParent()


CALLS = [
    said_otherwise(
        "calls-that-wait-are-done",
        "Event.tool_done",
        "An inference that ends while a call waits",
        done_instead,
        "turn_closed",
    ),
    said_otherwise(
        "calls-of-a-tool-without-a-name",
        "ToolStart.name",
        "The name of the tool.",
        lambda event: event.tool_start.ClearField("name"),
        "tool_start",
    ),
    said_otherwise("calls-for-nobody", "ToolStart.placement", "Who will execute it.", for_nobody, "tool_start"),
    said_otherwise("calls-for-somebody", "ToolStart.placement", "UNSPECIFIED when nobody", for_client, "tool_start"),
    violation(
        "left-out-arguments-are-others",
        [
            ("ToolCallCompleted.call", "The call, unless `args_omitted` is set"),
            ("ToolCallCompleted.args_omitted", "The deltas of the entity, joined"),
        ],
        changes_events(with_arguments, is_a("tool_call")),
    ),
    said_otherwise(
        "arguments-are-left-out-without-a-word",
        "ToolCallCompleted.args_omitted",
        "Set when the event would be larger",
        lambda event: setattr(event.tool_call, "args_omitted", False),
        "tool_call",
    ),
    said_otherwise(
        "results-answer-nothing",
        "ToolResult.use",
        "The answer, unless `result_omitted` is set",
        lambda event: event.tool_result.use.ClearField("result"),
        "tool_result",
    ),
    said_otherwise(
        "no-call-waits",
        "ToolsRequired.calls",
        "The calls that wait for a result",
        lambda event: event.tools_required.ClearField("calls"),
        "tools_required",
    ),
]

ENGINE_CALLS = [
    said_otherwise(
        "engine-calls-count-from-0",
        "EngineCallStarted.iteration",
        "Counts the engine calls",
        lambda event: setattr(event.engine_call_started, "iteration", event.engine_call_started.iteration - 1),
        "engine_call_started",
    ),
    said_otherwise(
        "engine-calls-have-no-engine",
        "EngineCallStarted.engine",
        "The engine.",
        lambda event: event.engine_call_started.ClearField("engine"),
        "engine_call_started",
    ),
    said_otherwise(
        "engine-calls-use-nothing",
        "EngineCallFinished.usage",
        "What the call used.",
        lambda event: event.engine_call_finished.ClearField("usage"),
        "engine_call_finished",
    ),
    said_otherwise(
        "engine-calls-end-somehow",
        "EngineCallFinished.finish_class",
        "How its output ended.",
        lambda event: event.engine_call_finished.ClearField("finish_class"),
        "engine_call_finished",
    ),
]

INFERENCES = [
    said_otherwise(
        "everyone-is-the-next",
        "InferenceQueued.queue_position",
        "Its place, 1 for the next one.",
        lambda event: setattr(event.inference_queued, "queue_position", 1),
        "inference_queued",
    ),
    violation(
        "what-waited-goes-on-without-a-word",
        [
            ("InferenceStarted", "An attempt began, or went on after"),
            ("turnwire/v1/event.proto", "Whatever happens to an inference is an event"),
        ],
        changes_events(lambda event: event.log.SetInParent(), is_a("inference_started")),
    ),
    said_otherwise(
        "what-waited-comes-back-last",
        "InferenceState",
        "An inference that is QUEUED after having been RUNNING",
        lambda event: setattr(event.inference_queued, "queue_position", event.inference_queued.queue_position + 1),
        "inference_queued",
    ),
    said_otherwise(
        "answers-count-as-attempts",
        "Inference.attempt",
        "Handing an inference back on a shutdown",
        lambda event: setattr(event, "attempt", 1),
        "inference_finished",
    ),
    said_otherwise(
        "attempts-have-no-engine",
        "InferenceStarted.engine",
        "The engine that will be used.",
        lambda event: event.inference_started.ClearField("engine"),
        "inference_started",
    ),
    said_otherwise(
        "attempts-have-another-profile",
        "InferenceStarted.profile",
        "The profile that will be used.",
        lambda event: setattr(event.inference_started, "profile", "another"),
        "inference_started",
    ),
    said_otherwise(
        "nothing-was-used",
        "InferenceFinished.usage",
        "What was used, summed",
        lambda event: event.inference_finished.ClearField("usage"),
        "inference_finished",
    ),
    said_otherwise(
        "the-end-does-not-count",
        "InferenceFinished.event_count",
        "How many events the inference has",
        lambda event: setattr(event.inference_finished, "event_count", event.inference_finished.event_count - 1),
        "inference_finished",
    ),
    said_otherwise(
        "ends-do-not-say-how", "InferenceFinished.outcome", "Exactly one is set", without_outcome, "inference_finished"
    ),
    said_otherwise(
        "all-success-is-the-same",
        "InferenceSucceeded.finish_class",
        "How the output ended.",
        lambda event: event.inference_finished.succeeded.ClearField("finish_class"),
        "inference_finished",
    ),
    said_otherwise(
        "failures-do-not-say-why",
        "InferenceFailed.error",
        "Why.",
        lambda event: event.inference_finished.failed.ClearField("error"),
        "inference_finished",
    ),
    said_otherwise(
        "cancels-have-no-reason",
        "InferenceCancelled.reason",
        "The reason that came",
        lambda event: event.inference_finished.cancelled.ClearField("reason"),
        "inference_finished",
    ),
]

TURNS = [
    said_otherwise(
        "all-turns-open-as-the-first",
        "TurnOpened.index",
        "The index of the turn.",
        lambda event: event.turn_opened.ClearField("index"),
        "turn_opened",
    ),
    said_otherwise(
        "turns-open-on-nothing",
        "TurnOpened.parent",
        "The index of the turn it is built on.",
        lambda event: event.turn_opened.ClearField("parent"),
        "turn_opened",
    ),
    said_otherwise(
        "turns-open-on-the-first-one",
        "TurnOpened.parent",
        "Absent when it is built on nothing.",
        lambda event: setattr(event.turn_opened, "parent", 0),
        "turn_opened",
    ),
    said_otherwise(
        "turns-open-empty",
        "TurnOpened.block_count",
        "How many blocks the turn begins with",
        lambda event: event.turn_opened.ClearField("block_count"),
        "turn_opened",
    ),
    said_otherwise(
        "all-turns-close-as-the-first",
        "TurnClosed.index",
        "The index of the turn.",
        lambda event: event.turn_closed.ClearField("index"),
        "turn_closed",
    ),
    said_otherwise(
        "turns-close-empty",
        "TurnClosed.block_count",
        "How many blocks the turn has.",
        lambda event: event.turn_closed.ClearField("block_count"),
        "turn_closed",
    ),
]

VIOLATIONS = [*CALLS, *ENGINE_CALLS, *INFERENCES, *TURNS]

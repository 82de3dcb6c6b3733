"""The payloads of events, to and from protobuf: one arm of Event.payload per line of `ARMS`."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from turnwire.v1 import event_pb2 as pb
from turnwire.v1.inference_pb2 import FinishClass as WireFinishClass
from turnwire.v1.tool_pb2 import ToolPlacement as WireToolPlacement
from turnwire.v1.tool_pb2 import ToolUse as WireToolUse
from turnwire_server.domain import event as noun
from turnwire_server.domain.inference import FinishClass
from turnwire_server.domain.tool import ToolPlacement
from turnwire_server.wire import error, timestamp, tool, usage
from turnwire_server.wire.arm import Arm


def _finished_to_proto(payload: noun.InferenceFinished) -> pb.InferenceFinished:
    message = pb.InferenceFinished(usage=usage.to_proto(payload.usage), event_count=payload.event_count)
    match payload.outcome:
        case noun.Succeeded(finish_class):
            message.succeeded.finish_class = WireFinishClass.ValueType(finish_class)
            message.succeeded.SetInParent()
        case noun.Failed(failure):
            message.failed.error.CopyFrom(error.to_proto(failure))
        case noun.Cancelled(reason):
            message.cancelled.reason = reason
            message.cancelled.SetInParent()
    return message


def _finished_from_proto(message: pb.InferenceFinished) -> noun.InferenceFinished:
    outcome: noun.Outcome
    match message.WhichOneof("outcome"):
        case "succeeded":
            outcome = noun.Succeeded(FinishClass(message.succeeded.finish_class))
        case "failed":
            outcome = noun.Failed(error.from_proto(message.failed.error))
        case "cancelled":
            outcome = noun.Cancelled(message.cancelled.reason)
        case None:
            msg = "an inference.finished event says nothing of the outcome"
            raise ValueError(msg)
    return noun.InferenceFinished(outcome, usage.from_proto(message.usage), message.event_count)


def _thinking_final_to_proto(payload: noun.LlmThinkingFinal) -> pb.LlmThinkingFinal:
    return pb.LlmThinkingFinal(
        text=payload.text,
        text_bytes=payload.text_bytes,
        text_omitted=payload.text_omitted,
        signature=payload.signature,
        summary=payload.summary,
        encrypted_content=payload.encrypted_content,
        item=payload.item,
    )


def _thinking_final_from_proto(message: pb.LlmThinkingFinal) -> noun.LlmThinkingFinal:
    return noun.LlmThinkingFinal(
        text=message.text,
        text_bytes=message.text_bytes,
        text_omitted=message.text_omitted,
        signature=message.signature,
        summary=message.summary,
        encrypted_content=message.encrypted_content,
        item=message.item,
    )


def _result_to_proto(payload: noun.ToolResult) -> pb.ToolResult:
    if payload.result_omitted:
        return pb.ToolResult(use=WireToolUse(tool_call=payload.use.tool_call), result_omitted=True)
    return pb.ToolResult(use=tool.use_to_proto(payload.use))


def _thinking_mode_to_proto(mode: noun.ThinkingMode) -> pb.ThinkingMode:
    return pb.ThinkingMode(mode=mode.mode, phase=mode.phase, reasoning=mode.reasoning, extra_data=mode.extra_data)


def _thinking_mode_from_proto(message: pb.ThinkingMode) -> noun.ThinkingMode:
    return noun.ThinkingMode(message.mode, message.phase, message.reasoning, message.extra_data)


def _pause_to_proto(payload: noun.DebuggerPause) -> pb.DebuggerPause:
    return pb.DebuggerPause(
        pause=payload.pause,
        phase=payload.phase,
        summary=payload.summary,
        deadline_time=timestamp.optional_to_proto(payload.deadline_time),
        extra=payload.extra,
    )


def _pause_from_proto(message: pb.DebuggerPause) -> noun.DebuggerPause:
    deadline = timestamp.from_proto(message.deadline_time) if message.HasField("deadline_time") else None
    return noun.DebuggerPause(message.pause, message.phase, message.summary, deadline, message.extra)


ARMS: tuple[Arm[Any, Any], ...] = (
    Arm(
        "llm_delta",
        noun.LlmDelta,
        pb.LlmDelta,
        lambda p: pb.LlmDelta(delta=p.delta, offset=p.offset),
        lambda m: noun.LlmDelta(m.delta, m.offset),
    ),
    Arm(
        "llm_thinking_delta",
        noun.LlmThinkingDelta,
        pb.LlmThinkingDelta,
        lambda p: pb.LlmThinkingDelta(delta=p.delta, offset=p.offset),
        lambda m: noun.LlmThinkingDelta(m.delta, m.offset),
    ),
    Arm(
        "tool_delta",
        noun.ToolDelta,
        pb.ToolDelta,
        lambda p: pb.ToolDelta(delta=p.delta, offset=p.offset),
        lambda m: noun.ToolDelta(m.delta, m.offset),
    ),
    Arm(
        "inference_queued",
        noun.InferenceQueued,
        pb.InferenceQueued,
        lambda p: pb.InferenceQueued(queue_position=p.queue_position),
        lambda m: noun.InferenceQueued(m.queue_position),
    ),
    Arm(
        "inference_started",
        noun.InferenceStarted,
        pb.InferenceStarted,
        lambda p: pb.InferenceStarted(engine=p.engine, profile=p.profile, model=p.model),
        lambda m: noun.InferenceStarted(m.engine, m.profile, m.model),
    ),
    Arm(
        "inference_attempt_lost",
        noun.InferenceAttemptLost,
        pb.InferenceAttemptLost,
        lambda p: pb.InferenceAttemptLost(
            attempt=p.attempt, superseded_after_sequence=p.superseded_after_sequence, handed_back=p.handed_back
        ),
        lambda m: noun.InferenceAttemptLost(m.attempt, m.superseded_after_sequence, m.handed_back),
    ),
    Arm(
        "inference_finished",
        noun.InferenceFinished,
        pb.InferenceFinished,
        _finished_to_proto,
        _finished_from_proto,
    ),
    Arm(
        "turn_opened",
        noun.TurnOpened,
        pb.TurnOpened,
        lambda p: pb.TurnOpened(index=p.index, parent=p.parent, block_count=p.block_count),
        lambda m: noun.TurnOpened(m.index, m.block_count, m.parent if m.HasField("parent") else None),
    ),
    Arm(
        "turn_closed",
        noun.TurnClosed,
        pb.TurnClosed,
        lambda p: pb.TurnClosed(index=p.index, block_count=p.block_count),
        lambda m: noun.TurnClosed(m.index, m.block_count),
    ),
    Arm(
        "llm_start",
        noun.LlmStart,
        pb.LlmStart,
        lambda p: pb.LlmStart(role=p.role),
        lambda m: noun.LlmStart(m.role),
    ),
    Arm(
        "llm_final",
        noun.LlmFinal,
        pb.LlmFinal,
        lambda p: pb.LlmFinal(text=p.text, text_bytes=p.text_bytes, text_omitted=p.text_omitted),
        lambda m: noun.LlmFinal(m.text, m.text_bytes, m.text_omitted),
    ),
    Arm(
        "llm_thinking_start",
        noun.LlmThinkingStart,
        pb.LlmThinkingStart,
        lambda p: pb.LlmThinkingStart(role=p.role),
        lambda m: noun.LlmThinkingStart(m.role),
    ),
    Arm(
        "llm_thinking_final",
        noun.LlmThinkingFinal,
        pb.LlmThinkingFinal,
        _thinking_final_to_proto,
        _thinking_final_from_proto,
    ),
    Arm(
        "tool_start",
        noun.ToolStart,
        pb.ToolStart,
        lambda p: pb.ToolStart(name=p.name, placement=WireToolPlacement.ValueType(p.placement)),
        lambda m: noun.ToolStart(m.name, ToolPlacement(m.placement)),
    ),
    Arm(
        "tool_call",
        noun.ToolCallCompleted,
        pb.ToolCallCompleted,
        lambda p: pb.ToolCallCompleted(call=tool.call_to_proto(p.call), args_omitted=p.args_omitted),
        lambda m: noun.ToolCallCompleted(tool.call_from_proto(m.call), m.args_omitted),
    ),
    Arm(
        "tool_result",
        noun.ToolResult,
        pb.ToolResult,
        _result_to_proto,
        lambda m: noun.ToolResult(tool.use_from_proto(m.use), m.result_omitted),
    ),
    Arm("tool_done", noun.ToolDone, pb.ToolDone, lambda _: pb.ToolDone(), lambda _: noun.ToolDone()),
    Arm(
        "tools_required",
        noun.ToolsRequired,
        pb.ToolsRequired,
        lambda p: pb.ToolsRequired(
            calls=map(tool.call_to_proto, p.calls),
            approvals=map(tool.call_to_proto, p.approvals),
            deadline_time=timestamp.optional_to_proto(p.deadline_time),
        ),
        lambda m: noun.ToolsRequired(
            tuple(map(tool.call_from_proto, m.calls)),
            tuple(map(tool.call_from_proto, m.approvals)),
            timestamp.from_proto(m.deadline_time) if m.HasField("deadline_time") else None,
        ),
    ),
    Arm(
        "engine_call_started",
        noun.EngineCallStarted,
        pb.EngineCallStarted,
        lambda p: pb.EngineCallStarted(iteration=p.iteration, engine=p.engine, model=p.model),
        lambda m: noun.EngineCallStarted(m.iteration, m.engine, m.model),
    ),
    Arm(
        "engine_call_finished",
        noun.EngineCallFinished,
        pb.EngineCallFinished,
        lambda p: pb.EngineCallFinished(
            usage=usage.to_proto(p.usage),
            finish_class=WireFinishClass.ValueType(p.finish_class),
            stop_reason=p.stop_reason,
            model=p.model,
        ),
        lambda m: noun.EngineCallFinished(
            usage.from_proto(m.usage), FinishClass(m.finish_class), m.stop_reason, m.model
        ),
    ),
    Arm(
        "log",
        noun.Log,
        pb.Log,
        lambda p: pb.Log(level=p.level, message=p.message, fields=p.fields),
        lambda m: noun.Log(m.level, m.message, dict(m.fields)),
    ),
    Arm(
        "agent_mode",
        noun.AgentMode,
        pb.AgentMode,
        lambda p: pb.AgentMode(title=p.title, from_mode=p.from_mode, to_mode=p.to_mode, data=p.data),
        lambda m: noun.AgentMode(m.title, m.to_mode, m.from_mode, m.data),
    ),
    Arm(
        "thinking_mode_started",
        noun.ThinkingModeStarted,
        pb.ThinkingModeStarted,
        lambda p: pb.ThinkingModeStarted(thinking_mode=_thinking_mode_to_proto(p.thinking_mode)),
        lambda m: noun.ThinkingModeStarted(_thinking_mode_from_proto(m.thinking_mode)),
    ),
    Arm(
        "thinking_mode_update",
        noun.ThinkingModeUpdate,
        pb.ThinkingModeUpdate,
        lambda p: pb.ThinkingModeUpdate(thinking_mode=_thinking_mode_to_proto(p.thinking_mode)),
        lambda m: noun.ThinkingModeUpdate(_thinking_mode_from_proto(m.thinking_mode)),
    ),
    Arm(
        "thinking_mode_completed",
        noun.ThinkingModeCompleted,
        pb.ThinkingModeCompleted,
        lambda p: pb.ThinkingModeCompleted(
            thinking_mode=_thinking_mode_to_proto(p.thinking_mode), success=p.success, error=p.error
        ),
        lambda m: noun.ThinkingModeCompleted(_thinking_mode_from_proto(m.thinking_mode), m.success, m.error),
    ),
    Arm("debugger_pause", noun.DebuggerPause, pb.DebuggerPause, _pause_to_proto, _pause_from_proto),
    Arm(
        "debugger_resumed",
        noun.DebuggerResumed,
        pb.DebuggerResumed,
        lambda p: pb.DebuggerResumed(pause=p.pause, action=p.action),
        lambda m: noun.DebuggerResumed(m.pause, m.action),
    ),
    Arm(
        "error",
        noun.ErrorRaised,
        pb.ErrorRaised,
        lambda p: pb.ErrorRaised(error=error.to_proto(p.error)),
        lambda m: noun.ErrorRaised(error.from_proto(m.error)),
    ),
    Arm(
        "custom",
        noun.Custom,
        pb.Custom,
        lambda p: pb.Custom(type=p.type, json=p.json),
        lambda m: noun.Custom(m.type, m.json),
    ),
)

BY_NOUN: Mapping[type[noun.Payload], Arm[Any, Any]] = MappingProxyType({arm.noun: arm for arm in ARMS})
BY_FIELD: Mapping[str, Arm[Any, Any]] = MappingProxyType({arm.field: arm for arm in ARMS})

"""What events say, said otherwise: in streams, in snapshots and in ListEvents alike."""

from collections.abc import Callable
from typing import Any

from violations.kinds import always
from violations.streams import changes_events, is_a
from violations.violation import Violation, violation

Edit = Callable[[Any], Any]

TEXTS = ("llm_start", "llm_delta", "llm_final")
OF_INFERENCES = ("inference_queued", "inference_started", "inference_finished", "turn_opened", "turn_closed")


def said_otherwise(name: str, element: str, says: str, edit: Edit, *payloads: str) -> Violation:
    """Return a violation that changes the events with these payloads, or all of them."""
    return violation(name, (element, says), changes_events(edit, is_a(*payloads) if payloads else always))


def not_told(payload: str, says: str) -> Violation:
    """Return a violation that says something else where an event with this payload should be."""
    return said_otherwise(f"{payload}-is-not-told", f"Event.{payload}", says, _to_line, payload)


def _to_line(event: Any) -> None:
    event.log.message = "something happened"


def elsewhere(event: Any) -> None:
    """Tell of another entity."""
    event.entity = "elsewhere"


def without_payload(event: Any) -> None:
    """Say nothing of what happened."""
    event.ClearField(event.WhichOneof("payload"))


def in_characters(event: Any) -> None:
    """Count code points instead of bytes."""
    payload = getattr(event, event.WhichOneof("payload"))
    payload.offset = payload.offset * 2 // 3


def over_long(event: Any) -> None:
    """Have a text that the event is too large with."""
    if event.llm_final.text_omitted:
        event.llm_final.text = "x" * event.llm_final.text_bytes


def without_flag(event: Any) -> None:
    """Leave a text out without a word."""
    event.llm_final.text_omitted = False


def cut(event: Any) -> None:
    """Lose the last character of a piece."""
    payload = getattr(event, event.WhichOneof("payload"))
    payload.delta = payload.delta[:-1]


ENVELOPES = [
    said_otherwise(
        "sequences-begin-with-2",
        "Event.sequence",
        "The position of the event",
        lambda event: setattr(event, "sequence", event.sequence + 1),
    ),
    said_otherwise(
        "events-are-of-another-session",
        "Event.session_id",
        "The session whose log",
        lambda event: setattr(event, "session_id", "another"),
    ),
    said_otherwise(
        "events-are-about-another-inference",
        "Event.inference_id",
        "The inference that",
        lambda event: setattr(event, "inference_id", "another"),
    ),
    said_otherwise(
        "events-have-no-time",
        "Event.create_time",
        "When the event was made",
        lambda event: event.ClearField("create_time"),
    ),
    said_otherwise(
        "events-are-of-another-attempt",
        "Event.attempt",
        "The attempt that made",
        lambda event: setattr(event, "attempt", 1),
    ),
    said_otherwise("events-say-nothing", "Event.payload", "Exactly one is set.", without_payload),
    said_otherwise("finals-are-another-story", "Event.entity", "Events with the same entity", elsewhere, "llm_final"),
    said_otherwise(
        "blocks-have-two-names",
        "Event.entity",
        "What the event is about within the inference",
        lambda event: setattr(event, "entity", f"about {event.entity}"),
        *TEXTS,
    ),
    said_otherwise(
        "inferences-are-entities",
        "Event.entity",
        "Empty for events about the inference",
        lambda event: setattr(event, "entity", event.inference_id),
        *OF_INFERENCES,
    ),
]

STORIES = [
    not_told("inference_queued", "The inference was accepted"),
    not_told("inference_started", "An attempt began."),
    not_told("inference_finished", "The inference ended."),
    not_told("turn_opened", "The inference's turn was opened."),
    not_told("turn_closed", "The inference's turn was closed"),
    not_told("llm_start", "A text block begins."),
    not_told("llm_final", "A text block is complete."),
    not_told("llm_thinking_start", "A reasoning block begins."),
    not_told("llm_thinking_final", "A reasoning block is complete."),
    not_told("tool_start", "The model begins a tool call."),
    not_told("tool_call", "The tool call is complete."),
    not_told("tool_result", "A tool call was answered:"),
    not_told("tool_done", "Nothing more happens to a tool call."),
    not_told("tools_required", "The client has to answer tool calls;"),
    said_otherwise("pieces-of-nothing", "Event.llm_delta", "Entity: the block.", elsewhere, "llm_delta"),
    said_otherwise("thoughts-of-nothing", "Event.llm_thinking_delta", "Entity: the", elsewhere, "llm_thinking_delta"),
    said_otherwise("arguments-of-nothing", "Event.tool_delta", "Entity: the tool call.", elsewhere, "tool_delta"),
    said_otherwise(
        "engine-calls-begin-without-entity",
        "Event.engine_call_started",
        "Entity: the engine call.",
        lambda event: event.ClearField("entity"),
        "engine_call_started",
    ),
    said_otherwise(
        "engine-calls-end-as-others",
        "Event.engine_call_finished",
        "Entity: the engine call.",
        elsewhere,
        "engine_call_finished",
    ),
]

PIECES = [
    said_otherwise("text-is-cut", "LlmDelta.delta", "The piece: whole code points", cut, "llm_delta"),
    said_otherwise("thoughts-are-cut", "LlmThinkingDelta.delta", "The piece: whole", cut, "llm_thinking_delta"),
    said_otherwise("arguments-are-cut", "ToolDelta.delta", "The piece of JSON text: whole", cut, "tool_delta"),
    said_otherwise("text-is-counted-otherwise", "LlmDelta.offset", "How many bytes", in_characters, "llm_delta"),
    said_otherwise(
        "thoughts-are-counted-otherwise",
        "LlmThinkingDelta.offset",
        "How many bytes of UTF-8",
        in_characters,
        "llm_thinking_delta",
    ),
    said_otherwise(
        "arguments-are-counted-otherwise", "ToolDelta.offset", "How many bytes", in_characters, "tool_delta"
    ),
]

BLOCKS = [
    said_otherwise(
        "texts-are-spoken-by-nobody",
        "LlmStart.role",
        "Who speaks; `assistant`",
        lambda event: event.llm_start.ClearField("role"),
        "llm_start",
    ),
    said_otherwise(
        "thoughts-are-spoken-by-nobody",
        "LlmThinkingStart.role",
        "Who speaks; `assistant`",
        lambda event: event.llm_thinking_start.ClearField("role"),
        "llm_thinking_start",
    ),
    said_otherwise(
        "finals-have-no-text",
        "LlmFinal.text",
        "The complete text, unless",
        lambda event: event.llm_final.ClearField("text"),
        "llm_final",
    ),
    said_otherwise(
        "thoughts-have-no-text",
        "LlmThinkingFinal.text",
        "The complete reasoning, unless",
        lambda event: event.llm_thinking_final.ClearField("text"),
        "llm_thinking_final",
    ),
    said_otherwise(
        "finals-are-counted-in-characters",
        "LlmFinal.text_bytes",
        "The length of the complete text",
        lambda event: setattr(event.llm_final, "text_bytes", len(event.llm_final.text)),
        "llm_final",
    ),
    said_otherwise(
        "thoughts-are-counted-in-characters",
        "LlmThinkingFinal.text_bytes",
        "The length of the complete reasoning",
        lambda event: setattr(event.llm_thinking_final, "text_bytes", len(event.llm_thinking_final.text)),
        "llm_thinking_final",
    ),
    violation(
        "events-are-larger-than-they-may",
        [("Event", "Its encoded form is at most 256 KiB."), ("LlmFinal.text_omitted", "Set when the event would be")],
        changes_events(over_long, is_a("llm_final")),
    ),
    said_otherwise(
        "texts-are-left-out-without-a-word",
        "LlmFinal.text_omitted",
        "The deltas of the entity, joined",
        without_flag,
        "llm_final",
    ),
    said_otherwise(
        "thoughts-are-left-out-without-a-word",
        "LlmThinkingFinal.text_omitted",
        "As in LlmFinal.",
        lambda event: setattr(event.llm_thinking_final, "text_omitted", False),
        "llm_thinking_final",
    ),
    said_otherwise(
        "thoughts-are-left-out-and-summed-up",
        "LlmThinkingFinal.summary",
        "It MAY be empty; it is when `text_omitted`",
        lambda event: setattr(event.llm_thinking_final, "summary", "much"),
        "llm_thinking_final",
    ),
]

VIOLATIONS = [*ENVELOPES, *STORIES, *PIECES, *BLOCKS]

"""Violations of what the contract says of structured output."""

import json
from typing import Any

from turnwire.v1 import inference_pb2
from turnwire.v1.error_reason_pb2 import ERROR_REASON_OUTPUT_INVALID, Error
from violations.edits import alters, clears, drops, sets
from violations.kinds import changes, refuses, sends
from violations.violation import violation

SCHEMA = "Overrides.output_schema"


def without_references(request: Any) -> None:
    """Leave out the references of a schema."""
    text = request.overrides.output_schema
    if '"$ref"' in text:
        schema: dict[str, Any] = json.loads(text)
        schema.pop("$ref", None)
        request.overrides.output_schema = json.dumps(schema)


def nothing_of_what_was_invalid(_: Any, response: Any) -> None:
    """Show no output that broke the schema."""
    error = response.inference.error.reason
    if error == ERROR_REASON_OUTPUT_INVALID:
        kept = [block for block in response.turn.blocks if not block.HasField("llm_text")]
        del response.turn.blocks[:]
        response.turn.blocks.extend(kept)


def fails_when_tools_are_asked_for(_: Any, response: Any) -> None:
    """Say that the output is invalid where the last engine call asked for tools."""
    asks = (inference_pb2.FINISH_CLASS_TOOL_CALLS_PENDING, inference_pb2.FINISH_CLASS_MAX_ITERATIONS)
    if response.inference.finish_class in asks:
        response.inference.state = inference_pb2.INFERENCE_STATE_FAILED


VIOLATIONS = [
    violation(
        "schema-of-the-output-is-forgotten",
        [
            (SCHEMA, "The JSON Schema (draft 2020-12) that the final text has to satisfy"),
            (SCHEMA, "A text that does not satisfy it is sent back to the model"),
            (SCHEMA, "A schema that is not valid, that refers to something else"),
        ],
        sends("StartInference", clears("overrides.output_schema")),
    ),
    violation(
        "output-that-asks-for-tools-is-validated",
        (SCHEMA, "It is passed to the provider where that can hold its model to it"),
        changes("Wait", fails_when_tools_are_asked_for),
    ),
    violation(
        "invalid-output-is-told-as-rejected",
        (SCHEMA, "A text that does not satisfy it is sent back to the model"),
        alters(
            Error,
            sets("reason", 105),
            lambda error: error.reason == ERROR_REASON_OUTPUT_INVALID,
        ),
    ),
    violation(
        "invalid-output-is-not-kept",
        (SCHEMA, "All of it stays in the turn."),
        changes("Wait", nothing_of_what_was_invalid),
    ),
    violation(
        "older-drafts-are-refused",
        (SCHEMA, "`$schema` MAY name an older draft."),
        refuses("StartInference", "INVALID_FIELD", when=lambda request: "$schema" in request.overrides.output_schema),
    ),
    violation(
        "references-are-not-looked-at",
        (SCHEMA, "A reference MUST be `#` or begin with `#/`."),
        sends("StartInference", without_references),
    ),
    violation(
        "output-is-sent-back-without-a-word",
        ("ErrorRaised", "Something failed that does not end the inference"),
        changes("ListEvents", drops("events", lambda event: event.HasField("error"))),
    ),
]

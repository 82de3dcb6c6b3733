"""Violations of what the contract says of usage."""

from typing import Any

from turnwire.v1.inference_pb2 import Usage
from violations.edits import alters, clears, maps
from violations.streams import changes_events
from violations.violation import violation

SUM = "What was used, summed over all engine calls."


def loses(field: str) -> Any:
    """Return a plant that does not tell one field."""
    return alters(Usage, clears(field))


VIOLATIONS = [
    violation(
        "engine-calls-tell-no-usage",
        ("EngineCallFinished.usage", "What the call used."),
        changes_events(clears("engine_call_finished.usage")),
    ),
    violation(
        "usage-is-that-of-the-last-engine-call",
        [("Inference.usage", SUM), ("InferenceFinished.usage", SUM)],
        alters(Usage, maps("input_tokens", lambda count: min(count, 20))),
    ),
    violation(
        "input-is-told-without-what-was-cached",
        ("Usage.input_tokens", "Tokens of the input, cached ones included."),
        alters(Usage, lambda usage: setattr(usage, "input_tokens", usage.input_tokens - usage.cached_tokens)),
    ),
    violation(
        "output-is-told-without-reasoning",
        ("Usage.output_tokens", "Tokens of the output, reasoning included."),
        alters(Usage, lambda usage: setattr(usage, "output_tokens", usage.output_tokens - usage.reasoning_tokens)),
    ),
    violation(
        "cached-tokens-are-not-told", ("Usage.cached_tokens", "Tokens of the input that"), loses("cached_tokens")
    ),
    violation(
        "reasoning-is-not-told", ("Usage.reasoning_tokens", "Tokens of the output that"), loses("reasoning_tokens")
    ),
]

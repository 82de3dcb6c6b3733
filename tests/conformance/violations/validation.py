"""Violations of the field rules, and of what the contract says of what a server does not know."""

import re
from collections.abc import Callable, Iterator
from typing import Any

from violations.edits import tolerates
from violations.kinds import ANY, changes_refusal, refuses, refuses_otherwise
from violations.violation import Violation, violation

CONFIG = "InferenceConfig"
START = "StartInference"
CANCEL_AFTER = "SubscribeEventsRequest.cancel_after_disconnect"
KEY = "1 to 128 printable ASCII characters."


def is_long(texts: Any) -> bool:
    """Whether a map has much in it."""
    return sum(len(text) for text in texts.values()) > 60000


def of_rules() -> Iterator[Violation]:
    """Yield violations of other rules: what breaks one is taken."""
    rules: tuple[tuple[str, str, str, Callable[[Any], bool]], ...] = (
        (START, "Overrides.engine_options", "Options that only the profile's engine", _has("overrides.engine_options")),
        (START, "Turn.metadata", "Keys are `namespace.value@vN`", lambda r: any("@v" not in key for key in r.metadata)),
        (START, "StartInferenceRequest.metadata", "At most 64 entries of 64 KiB", lambda r: is_long(r.metadata)),
        (START, "StartInferenceRequest.data", "At most 64 entries of 64 KiB.", lambda r: is_long(r.data)),
        (START, "StartInferenceRequest.input", "The blocks to add to the parent turn", lambda r: len(r.input) > 1000),
        (START, "StartInferenceRequest.idempotency_key", KEY, _has("idempotency_key")),
        (START, "StartInferenceRequest.timeout", "Above 0, at most 30 days.", _has("timeout")),
        (START, "StartInferenceRequest.attempts_max", "How many attempts may be made", _has("attempts_max")),
        ("CreateSession", "Session.labels", "Keys are 1 to 63 characters", _has("session.labels")),
        ("CreateSession", "NewSession.display_name", "At most 256 characters.", _has("session.display_name")),
        ("CreateSession", "NewSession.metadata", "At most 64 entries", lambda r: is_long(r.session.metadata)),
        ("CreateSession", "NewSession.ttl", "At least 1 s, at most ten years.", _has("session.ttl")),
        ("CreateSession", "CreateSessionRequest.idempotency_key", KEY, _has("idempotency_key")),
        ("Wait", "WaitRequest.timeout", "How long to hold at most.", _has("timeout")),
        ("Cancel", "CancelRequest.reason", "At most 1,024 characters.", _has("reason")),
        ("SubscribeEvents", "SubscribeEventsRequest.until", "INFERENCE_END needs", _has("until")),
        ("SubscribeEvents", CANCEL_AFTER, "At most one day.", lambda r: r.cancel_after_disconnect.seconds > 86400),
        ("SubscribeEvents", CANCEL_AFTER, "It needs inference_id.", lambda r: not r.inference_id),
        ("SubmitToolResults", "SubmitToolResultsRequest.outcomes", "The answers, one per", lambda r: not r.outcomes),
        ("SubmitToolResults", "SubmitToolResultsRequest.idempotency_key", KEY, _has("idempotency_key")),
    )
    for method, element, says, when in rules:
        name = re.sub(r"\W+", "-", f"{element} {says}".lower()).strip("-")
        yield violation(f"any-{name}", (element, says), tolerates(method, when))


def _has(path: str) -> Callable[[Any], bool]:
    def test(request: Any) -> bool:
        found = request
        for name in path.split("."):
            field = found.DESCRIPTOR.fields_by_name[name]
            is_there = found.HasField(name) if field.has_presence else bool(getattr(found, name))
            if not is_there:
                return False
            found = getattr(found, name)
        return True

    return test


def names_the_message(refusal: Any) -> None:
    """Name a field although a rule is about the whole message."""
    refusal.fields = [field or "request" for field in refusal.fields]


def of_config() -> Iterator[Violation]:
    """Yield violations of the rules of a configuration: what breaks one is taken."""
    for field, says in (
        ("temperature", "Sampling temperature, 0 to 2."),
        ("top_p", "Nucleus sampling, above 0 and at most 1."),
        ("max_output_tokens", "The most tokens that one engine call may produce."),
        ("stop_sequences", "Texts at which the model stops, at most 16."),
        ("reasoning_effort", "How much the model should reason"),
        ("iterations_max", "The most engine calls of the tool loop, 1 to 100."),
    ):
        yield violation(f"any-{field}-is-taken", (f"{CONFIG}.{field}", says), tolerates(START))


def of_oneofs() -> Iterator[Violation]:
    """Yield violations of the rules of what has variants: none is taken."""
    for method, element, says in (
        (START, "StartInferenceRequest.target", "Exactly one is set."),
        ("Cancel", "CancelRequest.target", "Exactly one is set."),
        ("GetTurn", "GetTurnRequest.target", "Exactly one is set."),
        ("SubscribeEvents", "SubscribeEventsRequest.start", "Exactly one is set."),
        ("SubmitToolResults", "ToolOutcome.outcome", "Exactly one is set; `result` and `error`"),
    ):
        yield violation(f"{element}-may-be-missing", (element, says), tolerates(method))


def of_services() -> Iterator[Violation]:
    """Yield violations of what every rpc of a service may fail with: it has another reason."""
    for service, methods in (
        ("SessionService", ("GetSession", "ListTurns")),
        ("EngineService", ("ListEngines", "GetProfile")),
        ("DebugService", ("ListPauses", "ReleasePause")),
    ):
        yield violation(
            f"{service}-has-another-reason-for-what-is-malformed",
            (service, "Every rpc of this service MAY also fail with MALFORMED_MESSAGE"),
            refuses_otherwise(methods, "MALFORMED_MESSAGE", "INVALID_FIELD"),
        )


VIOLATIONS = [
    *of_config(),
    *of_services(),
    *of_oneofs(),
    *of_rules(),
    violation(
        "rules-of-whole-messages-name-a-field",
        ("ErrorReason.ERROR_REASON_INVALID_FIELD", "The details carry google.rpc.BadRequest"),
        changes_refusal(ANY, "INVALID_FIELD", names_the_message),
    ),
    violation(
        "long-waits-are-refused",
        ("WaitRequest.timeout", "More than 50 s counts as 50 s."),
        refuses("Wait", "INVALID_FIELD", when=lambda request: request.timeout.seconds > 50),
    ),
    violation(
        "coldest-temperature-is-refused",
        (f"{CONFIG}.temperature", "0 means as deterministic as the model can be."),
        refuses(
            START,
            "INVALID_FIELD",
            when=lambda request: (
                request.overrides.config.HasField("temperature") and request.overrides.config.temperature == 0
            ),
        ),
    ),
]

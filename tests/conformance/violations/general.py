"""Violations of what holds for many rpcs alike: how requests are refused, and how large responses are."""

from typing import Any

from violations.exchange import UNKNOWN, RefusalError
from violations.kinds import ANY, accepts, answers, changes, changes_refusal, refuses, refuses_otherwise
from violations.violation import violation

INVALID_FIELD = "ErrorReason.ERROR_REASON_INVALID_FIELD"


def too_many_fields(refusal: RefusalError) -> None:
    """Tell of more violations than a refusal may."""
    refusal.fields = refusal.fields * 9


def no_field(refusal: RefusalError) -> None:
    """Tell of none."""
    refusal.fields = []


def as_many_as_shown(_: Any, response: Any) -> None:
    """Count only the blocks that are shown."""
    for turn in response.turns:
        if turn.blocks:
            turn.block_count = len(turn.blocks)


VIOLATIONS = [
    violation(
        "too-many-fields-are-told",
        (INVALID_FIELD, "The details carry google.rpc.BadRequest with 1 to 8"),
        changes_refusal(ANY, "INVALID_FIELD", too_many_fields),
    ),
    violation(
        "no-field-is-told",
        (INVALID_FIELD, "The details carry google.rpc.BadRequest with 1 to 8"),
        changes_refusal(ANY, "INVALID_FIELD", no_field),
    ),
    violation(
        "bytes-that-are-no-message-are-taken-for-a-field",
        ("InferenceService", "Every rpc of this service MAY also fail with MALFORMED_MESSAGE"),
        refuses_otherwise(ANY, "MALFORMED_MESSAGE", "INVALID_FIELD"),
    ),
    violation(
        "an-rpc-that-nobody-knows-is-answered",
        ("ErrorReason.ERROR_REASON_FEATURE_NOT_IMPLEMENTED", "This server does not have the rpc or the feature."),
        answers(UNKNOWN),
    ),
    violation(
        "an-rpc-that-nobody-knows-is-not-found",
        ("ErrorReason.ERROR_REASON_FEATURE_NOT_IMPLEMENTED", "This server does not have the rpc or the feature."),
        refuses(UNKNOWN, "SESSION_NOT_FOUND"),
    ),
    violation(
        "labels-have-any-key",
        ("Session.labels", "Keys are 1 to 63 characters"),
        accepts(("CreateSession", "UpdateSession", "StartInference", "ForkSession"), "INVALID_FIELD"),
    ),
    violation(
        "a-page-of-blocks-has-none",
        ("SessionService.GetTurn", "A response aims at 1 MiB and has at least one block"),
        changes("GetTurn", lambda _, response: response.turn.ClearField("blocks")),
    ),
    violation(
        "blocks-that-are-left-out-are-not-counted",
        ("SessionService.ListTurns", "In the views DELTA and FULL the size of a response is bounded"),
        changes("ListTurns", as_many_as_shown),
    ),
]

"""Violations of what the contract says of errors, and of how inferences end."""

from typing import Any

from turnwire.v1 import error_reason_pb2, inference_pb2
from turnwire.v1.error_reason_pb2 import Error
from turnwire.v1.inference_pb2 import Inference
from turnwire_conformance.catalogue import REASONS
from violations.edits import alters, clears, maps, sets
from violations.exchange import RefusalError
from violations.kinds import ANY, changes, changes_refusal, takes
from violations.streams import changes_events
from violations.violation import violation

HEAD = "turnwire/v1/error_reason.proto"
REASON = "ErrorReason.ERROR_REASON_"

FAILED = inference_pb2.INFERENCE_STATE_FAILED


def changes_refusals(edit: Any) -> Any:
    """Return plants that change every refusal."""
    return [changes_refusal(ANY, reason, edit) for reason in REASONS]


def in_words(refusal: Any) -> None:
    """Say why in words only."""
    refusal.message = f"{refusal.reason}: {refusal.message}"
    refusal.reason = ""


def of_another_domain(refusal: Any) -> None:
    """Name another domain."""
    refusal.domain = "tide"


def failed_precondition(refusal: Any) -> None:
    """Have one code for everything."""
    refusal.code = "FAILED_PRECONDITION"


def without_metadata(refusal: Any) -> None:
    """Tell nothing more than the reason."""
    refusal.metadata = {}


def one_reason_for_all(_: Any) -> RefusalError:
    """Have one reason for everything."""
    return RefusalError.of("INTERNAL")


def without_output(reason: int) -> Any:
    """Return a plant that shows no output of inferences that ended with that reason."""

    def edit(_: Any, response: Any) -> None:
        if response.inference.error.reason == reason:
            del response.turn.blocks[response.turn.given_block_count :]

    return changes("Wait", edit)


def without_pages_of_output(_: Any, response: Any) -> None:
    """Show whole blocks only."""
    for block in list(response.turn.blocks):
        if block.status == 2:
            response.turn.blocks.remove(block)


async def refuse_what_fails(exchange: Any) -> Any:
    """Tell of a failure that comes at once by a status."""
    response = await exchange.forward()
    reached = await exchange.ask("Wait", inference_id=response.inference.inference_id)
    if reached.inference.state == FAILED:
        raise RefusalError.of("INTERNAL")
    return response


def class_of(state: int, finish_class: int) -> Any:
    """Return a plant that tells another class of inferences that ended so."""
    return alters(Inference, sets("finish_class", finish_class), lambda now: now.state == state)


VIOLATIONS = [
    violation(
        "every-refusal-has-one-reason",
        (HEAD, "Every error of this contract has exactly one reason"),
        *changes_refusals(one_reason_for_all),
    ),
    violation(
        "refusals-say-why-in-words",
        (HEAD, "What fails before acceptance is a gRPC status"),
        *changes_refusals(in_words),
    ),
    violation(
        "refusals-have-another-domain",
        (HEAD, "What fails before acceptance is a gRPC status"),
        *changes_refusals(of_another_domain),
    ),
    violation("refusals-have-one-code", (HEAD, "Code: the gRPC status code."), *changes_refusals(failed_precondition)),
    violation(
        "refusals-have-no-metadata",
        (HEAD, "Metadata: the keys of ErrorInfo.metadata"),
        *changes_refusals(without_metadata),
    ),
    violation("errors-have-no-code", ("Error.code", "The gRPC status code"), alters(Error, clears("code"))),
    violation(
        "what-fails-at-once-is-refused",
        ("InferenceService.StartInference", "It is accepted or refused as a whole"),
        takes("StartInference", refuse_what_fails),
    ),
    *(
        violation(
            f"{name}-loses-the-output",
            (f"{REASON}{name}", "Partial output is kept."),
            without_output(error_reason_pb2.ErrorReason.Value(f"ERROR_REASON_{name}")),
        )
        for name in ("ENGINE_STREAM_BROKEN", "ENGINE_STALLED", "ENGINE_FAILED")
    ),
    violation(
        "failed-inferences-lose-their-output",
        ("InferenceState.INFERENCE_STATE_FAILED", "Partial output is kept."),
        without_output(error_reason_pb2.ERROR_REASON_ENGINE_FAILED),
    ),
    violation(
        "output-that-is-too-large-is-lost",
        (f"{REASON}OUTPUT_TOO_LARGE", "What had arrived is kept."),
        changes("GetTurn", without_pages_of_output),
    ),
    violation(
        "failures-are-not-told",
        [
            ("Inference.error", "Why it FAILED."),
            ("InferenceState.INFERENCE_STATE_FAILED", "Terminal: it ended with `error`."),
        ],
        alters(Inference, clears("error")),
    ),
    violation(
        "every-inference-has-an-error",
        ("Inference.error", "Absent in every other state."),
        alters(Inference, lambda now: now.error.SetInParent()),
    ),
    violation(
        "running-inferences-have-a-class",
        ("Inference.finish_class", "UNSPECIFIED until the inference is terminal."),
        class_of(inference_pb2.INFERENCE_STATE_RUNNING, inference_pb2.FINISH_CLASS_COMPLETED),
    ),
    violation(
        "failed-inferences-are-told-as-interrupted",
        ("FinishClass", "COMPLETED, MAX_TOKENS, MAX_ITERATIONS and TOOL_CALLS_PENDING go with SUCCEEDED"),
        class_of(FAILED, inference_pb2.FINISH_CLASS_INTERRUPTED),
    ),
    violation(
        "completed-output-has-no-class",
        ("FinishClass.FINISH_CLASS_COMPLETED", "The model said all it wanted to say."),
        alters(Inference, clears("finish_class")),
    ),
    violation(
        "cut-output-is-told-as-completed",
        ("FinishClass.FINISH_CLASS_MAX_TOKENS", "The output was cut at max_output_tokens."),
        class_of(inference_pb2.INFERENCE_STATE_SUCCEEDED, inference_pb2.FINISH_CLASS_COMPLETED),
    ),
    violation(
        "events-do-not-tell-how-output-ended",
        ("InferenceSucceeded.finish_class", "How the output ended."),
        changes_events(clears("inference_finished.succeeded.finish_class")),
    ),
    violation(
        "engine-calls-do-not-tell-how-output-ended",
        ("EngineCallFinished.finish_class", "How its output ended."),
        changes_events(clears("engine_call_finished.finish_class")),
    ),
    violation(
        "inferences-end-for-the-reasons-of-requests",
        ("Error.reason", "Where it tells why an inference ended, it is one from 100 on."),
        alters(Error, maps("reason", lambda reason: reason - 100)),
    ),
    violation(
        "present-log-is-not-named",
        ("ErrorReason.ERROR_REASON_LOG_REPLACED", "`log` is the present one"),
        changes_refusal(ANY, "LOG_REPLACED", lambda refusal: refusal.metadata.update(log="the present one")),
    ),
]

"""Violations of what an inference tells of itself."""

from collections.abc import Callable
from typing import Any

from turnwire.v1 import inference_pb2 as pb
from violations.exchange import Exchange
from violations.kinds import changes, freezes, sends, takes
from violations.streams import changes_events, is_a
from violations.told import adds, clears, is_in, is_unfinished, sets, tells, tells_turns
from violations.violation import Violation, violation

INFERENCE = "Inference"
FINISH = "FinishClass"


def with_time(field: str) -> Callable[[Any], None]:
    """Tell a time that is none."""

    def edit(inference: Any) -> None:
        getattr(inference, field).CopyFrom(inference.create_time)

    return edit


def without_what_is_incomplete(turn: Any) -> None:
    """Forget the blocks that had not arrived as a whole."""
    kept = [block for block in turn.blocks if block.status != 2]
    del turn.blocks[:]
    turn.blocks.extend(kept)


def as_succeeded(inference: Any) -> None:
    """Tell of a success that was none."""
    inference.state = pb.INFERENCE_STATE_SUCCEEDED
    inference.finish_class = pb.FINISH_CLASS_COMPLETED


def as_the_other(inference: Any) -> None:
    """Tell of a cancel where a success came first, and the other way round."""
    is_success = inference.state == pb.INFERENCE_STATE_SUCCEEDED
    inference.state = pb.INFERENCE_STATE_CANCELLED if is_success else pb.INFERENCE_STATE_SUCCEEDED


def session_first(request: Any) -> None:
    """Let the configuration of the session go before that of the request."""
    request.overrides.config.MergeFrom(request.new_session.config)


def with_usage_of_the_last_call(message: Any) -> None:
    """Tell what the second of two engine calls used."""
    if message.usage.input_tokens == 110:
        message.usage.input_tokens = 100


async def nothing_of_unspecified(exchange: Exchange) -> Any:
    """List what is in the state UNSPECIFIED, which nothing is."""
    if pb.INFERENCE_STATE_UNSPECIFIED in exchange.request.states:
        return exchange.rpc.response_class()
    return await exchange.forward()


def told_as(name: str, other: str) -> Violation:
    """Return the violation that tells of another finish class."""
    found, instead = (pb.FinishClass.Value(f"FINISH_CLASS_{each}") for each in (name, other))
    sentence = {
        "COMPLETED": "The model said all it wanted to say.",
        "MAX_TOKENS": "The output was cut at",
        "MAX_ITERATIONS": "The tool loop was cut",
        "TOOL_CALLS_PENDING": "The model asked for tools",
        "INTERRUPTED": "A cancel ended it.",
        "ERROR": "An error ended it.",
    }[name]
    return violation(
        f"finish-class-{name}-is-told-as-{other}",
        (f"{FINISH}.FINISH_CLASS_{name}", sentence),
        tells(sets(finish_class=instead), which=lambda inference: inference.finish_class == found),
    )


VIOLATIONS = [
    violation(
        "queue-counts-from-0",
        (INFERENCE + ".queue_position", "The place in the session's line"),
        tells(adds("queue_position", -1), which=is_in("QUEUED")),
    ),
    violation(
        "queue-position-while-running",
        (INFERENCE + ".queue_position", "Present only while QUEUED."),
        tells(sets(queue_position=0), which=is_in("RUNNING", "CANCELLED")),
    ),
    violation(
        "inferences-are-named-in-capitals",
        (INFERENCE + ".inference_id", "The identity of the inference, a UUIDv7"),
        tells(lambda inference: sets(inference_id=inference.inference_id.upper())(inference)),
    ),
    violation(
        "an-answer-counts-as-an-attempt",
        [
            (INFERENCE + ".attempt", "Handing an inference back on a shutdown, releasing it"),
            (INFERENCE + ".attempt", "How many attempts were lost before the present one"),
        ],
        tells(sets(attempt=1), which=is_in("PAUSED", "SUCCEEDED")),
    ),
    violation(
        "a-model-is-told-before-it-is-known",
        (INFERENCE + ".model", "Empty until it is known."),
        tells(sets(model="tide-1"), which=is_in("QUEUED")),
    ),
    violation("no-start-time", (INFERENCE + ".start_time", "When it first left QUEUED"), tells(clears("start_time"))),
    violation(
        "start-time-while-queued",
        (INFERENCE + ".start_time", "Absent before."),
        tells(with_time("start_time"), which=is_in("QUEUED")),
    ),
    violation("no-end-time", (INFERENCE + ".end_time", "When it reached a terminal state."), tells(clears("end_time"))),
    violation(
        "end-time-while-running",
        (INFERENCE + ".end_time", "Absent before."),
        tells(with_time("end_time"), which=is_unfinished),
    ),
    violation(
        "cancel-requested-time-moves",
        (INFERENCE + ".cancel_requested_time", "When a cancel was first requested."),
        tells(
            lambda inference: inference.cancel_requested_time.GetCurrentTime(),
            which=lambda inference: inference.HasField("cancel_requested_time"),
        ),
    ),
    violation(
        "cancel-requested-time-of-what-nobody-cancelled",
        (INFERENCE + ".cancel_requested_time", "Absent when none was."),
        tells(
            with_time("cancel_requested_time"),
            which=lambda inference: not inference.HasField("cancel_requested_time"),
        ),
    ),
    violation(
        "second-commit-wins",
        [
            (INFERENCE + ".cancel_requested_time", "SUCCEEDED or FAILED after a request is legal"),
            ("InferenceService.Cancel", "The first commit wins: SUCCEEDED after a request is legal."),
        ],
        changes("GetInference", lambda _, response: as_the_other(response.inference)),
    ),
    violation(
        "no-deadline-time",
        (INFERENCE + ".deadline_time", "When `timeout` ends it."),
        tells(clears("deadline_time")),
    ),
    violation(
        "deadline-time-without-a-timeout",
        (INFERENCE + ".deadline_time", "Absent when it has none."),
        tells(with_time("deadline_time"), which=lambda inference: not inference.HasField("deadline_time")),
    ),
    violation(
        "finish-class-before-the-end",
        (INFERENCE + ".finish_class", "UNSPECIFIED until the inference is terminal."),
        tells(sets(finish_class=pb.FINISH_CLASS_COMPLETED), which=is_unfinished),
    ),
    violation(
        "usage-is-that-of-the-last-call",
        (INFERENCE + ".usage", "What was used, summed over all engine calls."),
        tells(with_usage_of_the_last_call),
    ),
    violation(
        "terminal-event-tells-other-usage",
        ("InferenceFinished.usage", "What was used, summed over all engine calls."),
        changes_events(lambda event: with_usage_of_the_last_call(event.inference_finished), is_a("inference_finished")),
    ),
    violation(
        "configuration-of-the-session-goes-first",
        (INFERENCE + ".config", "The configuration in effect, field by field"),
        sends("StartInference", session_first),
    ),
    violation(
        "configuration-of-the-session-is-ignored",
        ("Session.config", "Laid over the profile's configuration for every inference"),
        sends(
            "StartInference", lambda request: request.new_session.ClearField("config"), lambda r: bool(r.new_session)
        ),
    ),
    violation(
        "first-sequence-is-another",
        (INFERENCE + ".first_sequence", "The sequence of the first event"),
        tells(adds("first_sequence", 1)),
    ),
    violation(
        "last-sequence-stays-behind",
        (INFERENCE + ".last_sequence", "The sequence of the newest event"),
        tells(adds("last_sequence", -1), which=is_in("CANCELLED")),
    ),
    violation("no-error", (INFERENCE + ".error", "Why it FAILED."), tells(clears("error"))),
    violation(
        "turn-index-while-queued",
        (INFERENCE + ".turn_index", "Absent until the inference first leaves QUEUED."),
        tells(sets(turn_index=0), which=lambda inference: not inference.HasField("turn_index")),
    ),
    violation(
        "cancel-reason-is-lost",
        (INFERENCE + ".cancel_reason", "The reason that came with the first cancel request."),
        tells(clears("cancel_reason")),
    ),
    violation(
        "displaced-is-the-reason",
        (INFERENCE + ".cancel_reason", "It MAY be empty; it is when another inference displaced"),
        tells(
            sets(cancel_reason="displaced"),
            which=lambda inference: inference.HasField("cancel_requested_time") and not inference.cancel_reason,
        ),
    ),
    violation(
        "attempts-are-always-1",
        (INFERENCE + ".attempts_max", "How many attempts may be made in all."),
        tells(sets(attempts_max=1)),
    ),
    violation(
        "iterations-are-not-bounded-as-asked",
        ("InferenceConfig.iterations_max", "The most engine calls of the tool loop"),
        sends("StartInference", lambda request: request.overrides.config.ClearField("iterations_max")),
    ),
    violation(
        "queued-is-told-as-running",
        ("InferenceState.INFERENCE_STATE_QUEUED", "Accepted and durable; not running now."),
        tells(sets(state=pb.INFERENCE_STATE_RUNNING), which=is_in("QUEUED")),
    ),
    violation(
        "running-is-told-as-queued",
        ("InferenceState.INFERENCE_STATE_RUNNING", "A server process executes it."),
        tells(sets(state=pb.INFERENCE_STATE_QUEUED), which=is_in("RUNNING")),
    ),
    violation(
        "failed-is-told-as-succeeded",
        ("InferenceState.INFERENCE_STATE_FAILED", "Terminal: it ended with `error`."),
        tells(as_succeeded, which=is_in("FAILED")),
    ),
    violation(
        "succeeded-is-told-as-failed",
        ("InferenceState.INFERENCE_STATE_SUCCEEDED", "Terminal: it produced its output."),
        tells(sets(state=pb.INFERENCE_STATE_FAILED), which=is_in("SUCCEEDED")),
    ),
    violation(
        "cancelled-is-told-as-failed",
        ("InferenceState.INFERENCE_STATE_CANCELLED", "Terminal: a cancel ended it."),
        tells(sets(state=pb.INFERENCE_STATE_FAILED), which=is_in("CANCELLED")),
    ),
    violation(
        "partial-output-is-lost",
        [
            ("InferenceState.INFERENCE_STATE_FAILED", "Partial output is kept."),
            ("InferenceState.INFERENCE_STATE_CANCELLED", "Partial output is kept."),
        ],
        tells_turns(without_what_is_incomplete),
    ),
    violation(
        "partial-output-is-told-as-complete",
        ("BlockStatus.BLOCK_STATUS_INCOMPLETE", "The inference ended before the block did"),
        tells_turns(lambda turn: [sets(status=1)(block) for block in turn.blocks]),
    ),
    violation(
        "finish-classes-go-with-other-states",
        (FINISH, "COMPLETED, MAX_TOKENS, MAX_ITERATIONS and TOOL_CALLS_PENDING go with SUCCEEDED"),
        tells(sets(finish_class=pb.FINISH_CLASS_ERROR), which=is_in("CANCELLED")),
    ),
    told_as("COMPLETED", "MAX_TOKENS"),
    told_as("MAX_TOKENS", "COMPLETED"),
    told_as("MAX_ITERATIONS", "COMPLETED"),
    told_as("TOOL_CALLS_PENDING", "COMPLETED"),
    told_as("INTERRUPTED", "ERROR"),
    told_as("ERROR", "INTERRUPTED"),
    violation(
        "a-listing-has-every-state",
        ("ListInferencesRequest.states", "Only those in one of these states."),
        sends("ListInferences", clears("states")),
    ),
    violation(
        "a-listing-has-what-runs",
        ("ListInferencesRequest.states", "None: all."),
        sends("ListInferences", lambda request: request.states.append(pb.INFERENCE_STATE_RUNNING)),
    ),
    violation(
        "a-listing-looks-for-unspecified",
        ("ListInferencesRequest.states", "UNSPECIFIED is not looked at."),
        takes("ListInferences", nothing_of_unspecified),
    ),
    violation(
        "a-pause-outlives-its-inference",
        ("DebugService.ReleasePause", "A pause of an inference that is cancelled"),
        freezes("ListPauses", key=lambda request: request.session_id),
    ),
    violation(
        "active-is-not-told",
        ("Session.active", "The inference that is active"),
        changes("GetSession", lambda _, response: response.session.ClearField("active")),
    ),
    violation(
        "queued-is-counted-with-what-runs",
        ("Session.queued_count", "How many inferences are QUEUED"),
        changes(
            "GetSession",
            lambda _, response: adds("queued_count", response.session.HasField("active"))(response.session),
        ),
    ),
]

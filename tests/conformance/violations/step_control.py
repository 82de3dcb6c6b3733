"""Violations of what the contract says of step control."""

from typing import Any

from turnwire.v1 import debug_service_pb2 as pb
from turnwire.v1 import inference_pb2, session_pb2
from turnwire.v1.debug_service_pb2 import Pause
from turnwire.v1.inference_pb2 import Inference
from violations.edits import alters, clears, sets, tolerates
from violations.exchange import Exchange, RefusalError
from violations.kinds import answers, changes, sends, sends_after, takes
from violations.streams import changes_events
from violations.violation import violation

MODE, RELEASE = "DebugService.SetStepMode", "DebugService.ReleasePause"
DEADLINE, ACTION = "SetStepModeRequest.deadline", "SetStepModeRequest.deadline_action"

CONTINUE, STEP, ABORT = pb.PAUSE_ACTION_CONTINUE, pb.PAUSE_ACTION_STEP, pb.PAUSE_ACTION_ABORT

PAUSED = inference_pb2.INFERENCE_STATE_PAUSED


def releases(action: int, instead: int) -> Any:
    """Return a plant that releases pauses otherwise."""
    return sends("ReleasePause", sets("action", instead), lambda request: request.action == action)


async def no_pauses_after_tools(exchange: Exchange) -> Any:
    """Go over pauses after tools."""
    response = await exchange.forward()
    for pause in [each for each in response.pauses if each.phase == "after_tools"]:
        await exchange.ask("ReleasePause", pause=pause.id, action=STEP)
        response.pauses.remove(pause)
    return response


async def release_itself(exchange: Exchange) -> Any:
    """Go on as soon as anybody sees a pause."""
    response = await exchange.forward()
    for pause in response.pauses:
        await exchange.ask("ReleasePause", pause=pause.id)
    return response


async def pauses_outlive_their_inference(exchange: Exchange) -> Any:
    """Release what is not there any more, if it was once."""
    request = exchange.request
    try:
        return await exchange.forward()
    except RefusalError as refusal:
        if refusal.reason == "PAUSE_NOT_FOUND" and "." in request.pause:
            return pb.ReleasePauseResponse()
        raise


VIOLATIONS = [
    violation(
        "step-mode-is-for-engine-calls-only",
        (MODE, "While it is on, inferences of the session pause"),
        takes("ListPauses", no_pauses_after_tools),
    ),
    violation(
        "step-mode-is-never-turned-off",
        (MODE, "Turning it off releases a pause with CONTINUE."),
        answers("SetStepMode", when=lambda request: not request.enabled),
    ),
    violation(
        "step-mode-changes-the-revision",
        (MODE, "It is not a change in the sense of Session.revision."),
        sends_after(
            "SetStepMode",
            "UpdateSession",
            lambda request, _: {"session": {"session_id": request.session_id}, "update_mask": {"paths": ["labels"]}},
        ),
    ),
    violation(
        "step-mode-is-not-told",
        ("Session.step_mode", "Whether inferences of the session pause"),
        alters(session_pb2.Session, clears("step_mode")),
    ),
    violation(
        "paused-inferences-are-told-as-running",
        [
            ("InferenceState.INFERENCE_STATE_PAUSED", "Step mode paused it; it waits for ReleasePause."),
            ("Event.debugger_pause", "Step mode paused the inference; it is PAUSED."),
        ],
        alters(Inference, sets("state", inference_pb2.INFERENCE_STATE_RUNNING), lambda now: now.state == PAUSED),
    ),
    # releasing
    violation(
        "step-is-continue", ("PauseAction.PAUSE_ACTION_STEP", "Go on to the next pause."), releases(STEP, CONTINUE)
    ),
    violation(
        "continue-is-step",
        [
            ("PauseAction.PAUSE_ACTION_CONTINUE", "Go on, without further pauses for this inference."),
            ("PauseAction.PAUSE_ACTION_UNSPECIFIED", "CONTINUE."),
            ("ReleasePauseRequest.action", "UNSPECIFIED means CONTINUE."),
        ],
        releases(CONTINUE, STEP),
        releases(pb.PAUSE_ACTION_UNSPECIFIED, STEP),
    ),
    violation(
        "abort-is-continue",
        ("PauseAction.PAUSE_ACTION_ABORT", "End the inference: FAILED with STEP_ABORTED."),
        releases(ABORT, CONTINUE),
    ),
    violation(
        "releases-are-told-and-do-not-happen",
        (RELEASE, "The reply means that the release is durable"),
        answers("ReleasePause"),
    ),
    violation(
        "released-pauses-tell-no-action",
        ("DebuggerResumed.action", "`continue`, `step` or `abort`"),
        changes_events(clears("debugger_resumed.action")),
    ),
    violation(
        "pauses-outlive-their-inference",
        (RELEASE, "A pause of an inference that is cancelled or reaches its own deadline"),
        takes("ReleasePause", pauses_outlive_their_inference),
    ),
    # deadlines
    violation(
        "pauses-have-no-deadline",
        (DEADLINE, "How long a pause lasts if nobody releases it."),
        sends("SetStepMode", sets("deadline.seconds", 3600)),
    ),
    violation(
        "pauses-last-a-moment-when-nothing-is-said",
        (DEADLINE, "Absent: 30 s."),
        sends("SetStepMode", sets("deadline.nanos", 200_000_000), lambda request: not request.HasField("deadline")),
        sends(
            "SetStepMode", lambda request: request.deadline.FromMilliseconds(request.deadline.ToMilliseconds() or 200)
        ),
    ),
    violation("pauses-may-last-for-ever", (DEADLINE, "At most one day."), tolerates("SetStepMode")),
    violation(
        "action-of-the-deadline-is-not-looked-at",
        (ACTION, "What happens then."),
        sends("SetStepMode", clears("deadline_action"), lambda request: request.deadline_action == ABORT),
    ),
    violation(
        "deadlines-may-step",
        (ACTION, "UNSPECIFIED means CONTINUE; STEP is INVALID_FIELD."),
        sends("SetStepMode", clears("deadline_action"), lambda request: request.deadline_action == STEP),
    ),
    # what a pause tells
    violation(
        "pauses-name-no-inference",
        ("Pause.inference_id", "The inference that is paused."),
        alters(Pause, clears("inference_id")),
    ),
    violation(
        "pauses-have-another-phase", ("Pause.phase", "Where in the loop"), alters(Pause, sets("phase", "paused"))
    ),
    violation(
        "pauses-have-no-beginning", ("Pause.create_time", "When the pause began."), alters(Pause, clears("create_time"))
    ),
    violation(
        "pauses-have-no-end", ("Pause.deadline_time", "When it ends by itself."), alters(Pause, clears("deadline_time"))
    ),
    violation(
        "pauses-end-with-abort",
        ("Pause.deadline_action", "What happens then."),
        alters(Pause, sets("deadline_action", ABORT)),
    ),
    violation(
        "pauses-belong-to-a-session",
        ("ListPausesRequest.session_id", "Empty: those of all sessions."),
        answers("ListPauses", when=lambda request: not request.session_id),
    ),
    violation(
        "releases-count-as-attempts",
        ("Inference.attempt", "Handing an inference back on a shutdown, releasing it from a pause"),
        changes("Wait", sets("inference.attempt", 1)),
    ),
]

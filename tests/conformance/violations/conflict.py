"""Violations of what comes of a start in a session that is busy."""

from typing import Any

from turnwire.v1 import inference_pb2 as pb
from violations.exchange import Exchange, RefusalError
from violations.kinds import changes, forgets, sends, takes
from violations.streams import changes_events, is_a
from violations.told import adds, clears, sets
from violations.violation import violation

METHOD = "StartInference"
POLICY = "ConflictPolicy.CONFLICT_POLICY_"


def asks_for(policy: int, *found: int) -> Any:
    """Ask for another policy where one of these was asked for."""
    return sends(METHOD, sets(conflict_policy=policy), when=lambda request: request.conflict_policy in found)


async def runs_beside(exchange: Exchange) -> Any:
    """Run a second inference beside the first one, in a session of its own that is told as the same."""
    session_id = exchange.request.session_id
    try:
        return await exchange.forward()
    except RefusalError as refusal:
        if refusal.reason != "SESSION_BUSY":
            raise
    exchange.request.new_session.SetInParent()
    response = await exchange.forward()
    response.inference.session_id = session_id
    return response


async def clears_the_line(exchange: Exchange) -> Any:
    """Cancel all that waits in the line, when something is displaced."""
    response = await exchange.forward()
    if exchange.request.conflict_policy == pb.CONFLICT_POLICY_INTERRUPT:
        queued = [pb.INFERENCE_STATE_QUEUED]
        listed = await exchange.ask("ListInferences", session_id=exchange.request.session_id, states=queued)
        for each in listed.inferences:
            if each.inference_id != response.inference.inference_id:
                await exchange.ask("Cancel", inference_id=each.inference_id)
    return response


async def without_bound(exchange: Exchange) -> Any:
    """Make room in a line that is full, for what displaces."""
    try:
        return await exchange.forward()
    except RefusalError as refusal:
        if refusal.reason != "QUEUE_FULL" or exchange.request.conflict_policy != pb.CONFLICT_POLICY_INTERRUPT:
            raise
    queued = [pb.INFERENCE_STATE_QUEUED]
    listed = await exchange.ask("ListInferences", session_id=exchange.request.session_id, states=queued)
    await exchange.ask("Cancel", inference_id=listed.inferences[0].inference_id)
    return await exchange.forward()


async def only_the_active(exchange: Exchange) -> Any:
    """Displace nobody when none is active, and stand last in line."""
    request = exchange.request
    if request.session_id and request.conflict_policy in {3, 4}:
        session = (await exchange.ask("GetSession", session_id=request.session_id)).session
        if not session.active.inference_id:
            request.conflict_policy = pb.CONFLICT_POLICY_ENQUEUE
    return await exchange.forward()


async def cancelled_and_last(exchange: Exchange) -> Any:
    """Cancel what is active, and put the new one last in line."""
    request = exchange.request
    if request.conflict_policy == pb.CONFLICT_POLICY_INTERRUPT:
        request.conflict_policy = pb.CONFLICT_POLICY_ENQUEUE
        response = await exchange.forward()
        session = (await exchange.ask("GetSession", session_id=request.session_id)).session
        await exchange.ask("Cancel", inference_id=session.active.inference_id)
        return response
    return await exchange.forward()


async def busy_for_ever(exchange: Exchange) -> Any:
    """Stay busy once it was."""
    session_id = exchange.request.session_id
    if session_id in exchange.state:
        raise exchange.state[session_id]
    try:
        return await exchange.forward()
    except RefusalError as refusal:
        if refusal.reason == "SESSION_BUSY":
            exchange.state[session_id] = refusal
        raise


VIOLATIONS = [
    violation(
        "reject-is-enqueue",
        (f"{POLICY}REJECT", "The new inference is refused with SESSION_BUSY."),
        asks_for(pb.CONFLICT_POLICY_ENQUEUE, 0, 1),
    ),
    violation(
        "unspecified-is-enqueue",
        ("StartInferenceRequest.conflict_policy", "UNSPECIFIED means REJECT."),
        asks_for(pb.CONFLICT_POLICY_ENQUEUE, 0),
    ),
    violation(
        "what-has-ended-keeps-a-session-busy",
        ("StartInferenceRequest.conflict_policy", "What happens when the session has an inference"),
        forgets(METHOD, "SESSION_BUSY", key=lambda request: request.session_id or object()),
    ),
    violation(
        "busy-for-ever",
        ("ErrorReason.ERROR_REASON_SESSION_BUSY", "It works after that one has ended."),
        takes(METHOD, busy_for_ever),
    ),
    violation(
        "two-are-active",
        ("InferenceState", "An inference is active while it is RUNNING, WAITING_FOR_TOOLS or PAUSED"),
        takes(METHOD, runs_beside),
    ),
    violation(
        "what-comes-back-is-second",
        ("InferenceState", "An inference that is QUEUED after having been RUNNING is first in line."),
        changes_events(
            lambda event: adds("queue_position", 1)(event.inference_queued),
            which=lambda event: is_a("inference_queued")(event) and event.sequence > 1,
        ),
    ),
    violation(
        "an-active-inference-is-counted-as-queued",
        ("Session.active", "At most one inference of a session is active at any time."),
        changes(
            "GetSession",
            lambda _, response: response.session.queued_count and response.session.ClearField("active"),
        ),
    ),
    violation(
        "enqueue-is-interrupt",
        (f"{POLICY}ENQUEUE", "The new inference is put last in the session's bounded line"),
        asks_for(pb.CONFLICT_POLICY_INTERRUPT, 2),
    ),
    violation(
        "interrupt-is-enqueue",
        (f"{POLICY}INTERRUPT", "A cancel of the active inference is requested"),
        asks_for(pb.CONFLICT_POLICY_ENQUEUE, 3),
    ),
    violation(
        "interrupt-puts-last-in-line",
        (f"{POLICY}INTERRUPT", "A cancel of the active inference is requested"),
        takes(METHOD, cancelled_and_last),
    ),
    violation(
        "interrupt-displaces-only-what-is-active",
        (f"{POLICY}INTERRUPT", "A cancel of the active inference is requested"),
        takes(METHOD, only_the_active),
    ),
    violation(
        "interrupt-clears-the-line",
        (f"{POLICY}INTERRUPT", "The others stay."),
        takes(METHOD, clears_the_line),
    ),
    violation(
        "interrupt-makes-room",
        (f"{POLICY}INTERRUPT", "The line is bounded as with ENQUEUE."),
        takes(METHOD, without_bound),
    ),
    violation(
        "rollback-is-interrupt",
        (f"{POLICY}ROLLBACK", "As INTERRUPT, and the new turn is built on the parent"),
        asks_for(pb.CONFLICT_POLICY_INTERRUPT, 4),
    ),
    violation(
        "rollback-ignores-the-parent-that-is-named",
        (f"{POLICY}ROLLBACK", "As INTERRUPT, and the new turn is built on the parent"),
        sends(METHOD, clears("parent"), when=lambda request: request.conflict_policy == pb.CONFLICT_POLICY_ROLLBACK),
    ),
    violation(
        "rollback-is-enqueue",
        (f"{POLICY}ROLLBACK", "As INTERRUPT, and the new turn is built on the parent"),
        asks_for(pb.CONFLICT_POLICY_ENQUEUE, 4),
    ),
    violation(
        "places-are-counted-from-0-in-events",
        ("InferenceQueued.queue_position", "Its place, 1 for the next one."),
        changes_events(lambda event: adds("queue_position", 1)(event.inference_queued), is_a("inference_queued")),
    ),
]

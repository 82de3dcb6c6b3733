"""Sessions that are deleted, or delete themselves, otherwise than they should."""

import asyncio
from typing import Any

from google.protobuf.duration_pb2 import Duration

from turnwire.v1 import inference_service_pb2 as pb
from violations.exchange import Exchange, RefusalError, method_of
from violations.kinds import accepts, sends, takes
from violations.streams import drops_events, is_a, never_ends, rewrites
from violations.violation import violation

DELETE = "SessionService.DeleteSession"
SUBSCRIBE = "InferenceService.SubscribeEvents"
TTL = "NewSession.ttl"

TTL_SECONDS_MAX = 315_576_000


async def once_only(exchange: Exchange) -> Any:
    """Refuse a session_id that was there before."""
    session_id = exchange.request.session.session_id
    if session_id and session_id in exchange.state:
        raise RefusalError.of("SESSION_ALREADY_EXISTS", session_id=session_id)
    response = await exchange.forward()
    exchange.state[response.session.session_id] = True
    return response


async def with_another_face(exchange: Exchange) -> Any:
    """Give a session_id that was there before the log token that it had."""
    response = await exchange.forward()
    logs = exchange.state.setdefault("logs", {})
    response.session.log = logs.setdefault(response.session.session_id, response.session.log)
    return response


async def anyhow(exchange: Exchange) -> Any:
    """Delete a session that lives for a while after its ttl, whatever runs in it."""
    ttl = exchange.request.new_session.ttl
    seconds = ttl.ToTimedelta().total_seconds()
    response = await exchange.forward()

    async def delete() -> None:
        await asyncio.sleep(seconds)
        await exchange.ask("DeleteSession", session_id=response.inference.session_id, force=True)

    if seconds:
        exchange.begin(delete())
    return response


def is_out_of_range(request: Any) -> bool:
    """Whether a ttl is none that there is."""
    seconds = request.session.ttl.ToTimedelta().total_seconds()
    return request.session.HasField("ttl") and not 1 <= seconds <= TTL_SECONDS_MAX


def for_ever(request: Any) -> None:
    """Let a session live for ever."""
    name = "new_session" if "new_session" in request.DESCRIPTOR.fields_by_name else "session"
    if request.HasField(name):
        getattr(request, name).ClearField("ttl")


async def with_its_forks(exchange: Exchange) -> Any:
    """Find no session any more once one was deleted."""
    if method_of(exchange.rpc) == "DeleteSession":
        exchange.state["is_over"] = True
    elif exchange.state.get("is_over"):
        raise RefusalError.of("SESSION_NOT_FOUND")
    return await exchange.forward()


def as_drained(_: Any, response: Any) -> None:
    """Say that the server shuts down."""
    if response.end.reason == pb.SUBSCRIPTION_END_REASON_SESSION_DELETED:
        response.end.reason = pb.SUBSCRIPTION_END_REASON_DRAINING


DELETIONS = [
    violation(
        "what-is-cancelled-by-force-does-not-tell",
        (DELETE, "With `force`, what has not ended is cancelled first"),
        drops_events(is_a("inference_finished")),
    ),
    violation(
        "streams-outlive-their-session",
        (SUBSCRIBE, "In every row SESSION_DELETED, DRAINING"),
        never_ends(),
    ),
    violation(
        "streams-of-a-deleted-session-are-drained",
        [
            (DELETE, "Then every stream of the session ends with SESSION_DELETED."),
            ("SubscriptionEndReason.SUBSCRIPTION_END_REASON_SESSION_DELETED", "The session was deleted."),
        ],
        rewrites(as_drained),
    ),
    violation(
        "inferences-outlive-their-session",
        (DELETE, "Afterwards its inferences are INFERENCE_NOT_FOUND"),
        accepts(("GetInference", "Wait", "Cancel", "GetTurn"), "INFERENCE_NOT_FOUND"),
    ),
    violation(
        "a-session-id-is-used-once",
        ("Session.session_id", "A session that was deleted MAY be created again"),
        takes("CreateSession", once_only),
    ),
    violation(
        "a-log-lives-again",
        [
            (DELETE, "Afterwards its inferences are INFERENCE_NOT_FOUND"),
            ("Session.log", "A client SHOULD send it along with a stored cursor"),
        ],
        takes("CreateSession", with_another_face),
    ),
    violation(
        "keys-die-with-their-session",
        (DELETE, "Idempotency keys that belong to the session answer"),
        accepts(("CreateSession", "ForkSession", "StartInference"), "SESSION_NOT_FOUND"),
    ),
    violation(
        "forks-die-with-their-origin",
        [
            ("SessionService.ForkSession", "Nothing is copied; deleting the origin"),
            ("SessionOrigin.session_id", "It MAY have been deleted since."),
        ],
        takes(("DeleteSession", "GetTurn", "GetSession"), with_its_forks),
    ),
    violation(
        "revisions-do-not-matter",
        ("DeleteSessionRequest.revision", "If set, the revision"),
        sends("DeleteSession", lambda request: request.ClearField("revision")),
    ),
    violation(
        "all-is-by-force",
        ("DeleteSessionRequest.force", "Whether to delete it"),
        sends("DeleteSession", lambda request: setattr(request, "force", True)),
    ),
]

EXPIRIES = [
    violation(
        "sessions-live-for-ever",
        [
            (TTL, "How long the session lives after its creation"),
            ("Session.expire_time", "When the session will be deleted by itself"),
        ],
        sends(("CreateSession", "StartInference"), for_ever),
    ),
    violation(
        "no-session-lives-for-ever",
        [(TTL, "Absent: for ever."), ("Session.expire_time", "Absent: never.")],
        sends(
            "CreateSession",
            lambda request: request.session.ttl.CopyFrom(Duration(seconds=3600)),
            lambda request: not request.session.HasField("ttl"),
        ),
    ),
    violation(
        "sessions-expire-while-they-are-at-work",
        (TTL, "While an inference has not ended it is not deleted."),
        takes("StartInference", anyhow),
    ),
    violation(
        "sessions-live-as-short-as-they-like",
        (TTL, "At least 1 s, at most ten years."),
        sends("CreateSession", for_ever, is_out_of_range),
    ),
]

VIOLATIONS = [*DELETIONS, *EXPIRIES]

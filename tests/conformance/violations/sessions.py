"""Violations of what the contract says of sessions."""

from typing import Any

from turnwire.v1 import inference_pb2, session_service_pb2
from turnwire.v1.inference_pb2 import Inference
from turnwire.v1.session_pb2 import Session
from violations.edits import alters, clears, maps, reverses, sets
from violations.exchange import Exchange, RefusalError
from violations.kinds import accepts, answers, changes, forgets, freezes, refuses, sends, sends_after, takes
from violations.violation import violation

CREATE, UPDATE = "SessionService.CreateSession", "SessionService.UpdateSession"
MASK = "UpdateSessionRequest.update_mask"

WAITING = inference_pb2.INFERENCE_STATE_WAITING_FOR_TOOLS


async def forget_what_was_created(exchange: Exchange) -> Any:
    """Answer before anything is stored, and lose it."""
    response = await exchange.forward()
    await exchange.ask("DeleteSession", session_id=response.session.session_id, force=True)
    return response


async def take_over(exchange: Exchange) -> Any:
    """Let the second one have a session_id that is taken."""
    session_id = exchange.request.session.session_id
    try:
        return await exchange.forward()
    except RefusalError as refusal:
        if refusal.reason != "SESSION_ALREADY_EXISTS":
            raise
        found = (await exchange.ask("GetSession", session_id=session_id)).session
        return session_service_pb2.CreateSessionResponse(session=found, created=True)


async def same_log_for_ever(exchange: Exchange) -> Any:
    """Give each session of a session_id the log of the first one."""
    response = await exchange.forward()
    session = response.session
    session.log = exchange.state.setdefault(session.session_id, session.log)
    return response


async def merge_maps(exchange: Exchange) -> Any:
    """Add to what is there, instead of replacing it."""
    request = exchange.request
    try:
        now = (await exchange.ask("GetSession", session_id=request.session.session_id)).session
    except RefusalError:
        return await exchange.forward()
    for name in ("labels", "metadata"):
        for key, value in getattr(now, name).items():
            getattr(request.session, name).setdefault(key, value)
    if now.HasField("config"):
        config = inference_pb2.InferenceConfig()
        config.CopyFrom(now.config)
        config.MergeFrom(request.session.config)
        request.session.config.CopyFrom(config)
    return await exchange.forward()


async def end_under_an_inference(exchange: Exchange) -> Any:
    """Let a session expire while an inference waits to end."""
    response = await exchange.forward()
    session = (await exchange.ask("GetSession", session_id=response.inference.session_id)).session
    if session.HasField("expire_time") and response.inference.state == inference_pb2.INFERENCE_STATE_RUNNING:
        await exchange.ask("DeleteSession", session_id=session.session_id, force=True)
    return response


def everything(request: Any) -> None:
    """Read every field, whatever the mask names."""
    if all(path in ("display_name", "labels", "metadata", "profile", "config") for path in request.update_mask.paths):
        request.update_mask.paths[:] = ["display_name", "labels", "metadata", "profile", "config"]


def nothing_of_maps(request: Any) -> None:
    """Do not change maps."""
    kept = [path for path in request.update_mask.paths if path not in ("labels", "metadata")]
    if kept:
        request.update_mask.paths[:] = kept


def only_known_paths(request: Any) -> None:
    """Leave out paths that there are not."""
    known = ("display_name", "labels", "metadata", "profile", "config")
    kept = [path for path in request.update_mask.paths if path in known]
    request.update_mask.paths[:] = kept or ["config"]


def counts_as_a_change(_: Any, response: Any) -> dict[str, Any]:
    """Change the session of an inference."""
    return {"session": {"session_id": response.inference.session_id}, "update_mask": {"paths": ["labels"]}}


def rewritten(session: Any) -> None:
    """Read numbers as other programs do."""
    for key, value in list(session.metadata.items()):
        session.metadata[key] = value.replace("12345678901234567890", "12345678901234567000")


def upper(session: Any) -> None:
    """Write labels in capitals."""
    for key, value in list(session.labels.items()):
        session.labels[key] = value.upper()


VIOLATIONS = [
    # creation
    violation(
        "created-sessions-are-lost",
        (CREATE, "The reply means that it is durable."),
        takes("CreateSession", forget_what_was_created),
    ),
    violation(
        "creations-forget-their-key",
        [
            (CREATE, "Idempotent by idempotency_key: a repeat returns"),
            ("CreateSessionRequest.idempotency_key", "Names this creation, so that a repeat does not"),
        ],
        sends("CreateSession", clears("idempotency_key")),
    ),
    violation(
        "repeated-creations-are-told-as-created",
        ("CreateSessionResponse.created", "Whether this request created it"),
        changes("CreateSession", sets("created", value=True)),
    ),
    violation(
        "session-ids-are-taken-over",
        (CREATE, "Without a key, a client-chosen session_id guards against a second creation."),
        takes("CreateSession", take_over),
    ),
    violation(
        "session-ids-have-at-most-64-characters",
        ("Session.session_id", "The identity of the session: 1 to 128 characters"),
        refuses("CreateSession", "INVALID_FIELD", when=lambda request: len(request.session.session_id) > 64),
    ),
    violation(
        "session-ids-are-always-minted",
        ("Session.session_id", "Either chosen by the client at creation"),
        sends("CreateSession", clears("session.session_id")),
        changes("CreateSession", maps("session.session_id", lambda name: name.upper())),
    ),
    violation(
        "minted-session-ids-are-short",
        ("NewSession.session_id", "Empty: the server mints a UUIDv7."),
        changes("CreateSession", maps("session.session_id", lambda name: name[:8] if len(name) == 36 else name)),
    ),
    violation(
        "sessions-take-any-profile",
        ("NewSession.profile", "A name that the server does not have is PROFILE_NOT_FOUND."),
        accepts("CreateSession", "PROFILE_NOT_FOUND"),
    ),
    violation(
        "sessions-of-one-id-have-one-log",
        [
            ("Session.session_id", "A session that was deleted MAY be created again"),
            ("Session.log", "An opaque token for the identity of the session's event log."),
        ],
        takes("CreateSession", same_log_for_ever),
    ),
    # what a session tells
    violation(
        "names-are-lost", ("Session.display_name", "A name for people."), alters(Session, clears("display_name"))
    ),
    violation("labels-are-lost", ("Session.labels", "Short strings to filter by"), alters(Session, clears("labels"))),
    violation(
        "labels-are-interpreted",
        ("Session.labels", "The server does not interpret them."),
        alters(Session, upper),
    ),
    violation(
        "integers-of-metadata-are-rounded",
        ("Session.metadata", "Data of the application"),
        alters(Session, rewritten),
    ),
    violation(
        "sessions-do-not-keep-their-profile",
        ("Session.profile", "The profile that an inference of this session uses"),
        alters(Session, clears("profile")),
    ),
    violation(
        "new-sessions-were-changed",
        ("Session.update_time", "When the session itself was last changed"),
        alters(Session, lambda session: session.update_time.GetCurrentTime()),
    ),
    violation(
        "revisions-begin-with-0",
        ("Session.revision", "Rises by exactly 1 with every UpdateSession; starts at 1."),
        alters(Session, maps("revision", lambda count: count - 1)),
    ),
    violation(
        "inferences-change-the-revision",
        ("Session.revision", "Inferences do not change it."),
        sends_after("StartInference", "UpdateSession", counts_as_a_change),
    ),
    violation(
        "heads-are-not-told",
        ("Session.head_sequence", "The sequence of the newest event"),
        alters(Session, clears("head_sequence")),
    ),
    violation(
        "waiting-inferences-are-not-active",
        ("Session.active", "The inference that is active"),
        alters(Session, clears("active")),
    ),
    violation(
        "ended-inferences-stay-active",
        ("Session.active", "Absent when there is none."),
        alters(Session, sets("active.inference_id", "none", lambda _: True)),
        alters(Session, lambda session: session.active.SetInParent()),
    ),
    violation(
        "queued-inferences-are-not-counted",
        ("Session.queued_count", "How many inferences are QUEUED"),
        alters(Session, clears("queued_count")),
    ),
    violation(
        "every-session-has-an-origin",
        ("Session.origin", "Absent for a session that was not made by ForkSession."),
        alters(Session, lambda session: session.origin.SetInParent()),
    ),
    # changes
    violation(
        "fields-beyond-the-mask-are-read",
        ("UpdateSessionRequest.session", "Only session_id and the fields of update_mask are read."),
        sends("UpdateSession", everything),
    ),
    violation(
        "maps-are-not-changed",
        (MASK, "The fields to change: `display_name`, `labels`"),
        sends("UpdateSession", nothing_of_maps),
    ),
    violation(
        "maps-are-added-to",
        [(MASK, "A map and `config` are replaced as a whole."), ("SessionUpdate.config", "Absent: none.")],
        takes("UpdateSession", merge_maps),
    ),
    violation(
        "unknown-paths-are-left-out",
        (MASK, "An empty mask or another path is INVALID_FIELD."),
        sends("UpdateSession", only_known_paths),
    ),
    violation(
        "expected-revisions-are-not-looked-at",
        ("UpdateSessionRequest.revision", "If set, the revision that the session has to be at."),
        sends("UpdateSession", clears("revision")),
    ),
    # configuration
    violation(
        "configuration-of-a-session-is-not-used",
        [
            ("Session.config", "Laid over the profile's configuration for every inference"),
            ("InferenceConfig", "A field that is not set, or empty, keeps the value below it"),
        ],
        sends("CreateSession", clears("session.config")),
    ),
    violation(
        "configuration-in-effect-is-not-told",
        ("Inference.config", "The configuration in effect, field by field"),
        alters(Inference, clears("config")),
    ),
    violation(
        "profile-is-the-default-one-for-every-session",
        ("StartInferenceRequest.profile", "Empty: the session's, or the server's default."),
        refuses("StartInference", "PROFILE_NOT_FOUND", when=lambda request: not request.profile),
    ),
    violation(
        "profile-that-is-used-is-not-told",
        ("Inference.profile", "The name of the profile that was used."),
        alters(Inference, clears("profile")),
    ),
    # listings
    violation(
        "oldest-sessions-come-first",
        ("ListSessionsResponse.sessions", "The sessions, the newest first."),
        changes("ListSessions", reverses("sessions")),
    ),
    violation(
        "labels-do-not-choose",
        ("ListSessionsRequest.labels", "Only sessions that have all of these labels"),
        sends("ListSessions", clears("labels")),
    ),
    violation(
        "only-labels-choose",
        ("ListSessionsRequest.labels", "Empty: all sessions."),
        answers("ListSessions", when=lambda request: not request.labels),
    ),
    # time
    violation(
        "sessions-live-for-ever",
        [
            ("NewSession.ttl", "How long the session lives after its creation"),
            ("Session.expire_time", "When the session will be deleted by itself"),
        ],
        sends("CreateSession", clears("session.ttl")),
    ),
    violation(
        "sessions-expire-under-their-inferences",
        ("NewSession.ttl", "While an inference has not ended it is not deleted."),
        takes("Wait", end_under_an_inference),
    ),
    violation(
        "same-session-is-created-once-without-a-key",
        ("CreateSessionRequest.idempotency_key", "Empty: no guard."),
        freezes("CreateSession", key=lambda request: request.SerializeToString()),
    ),
    violation(
        "names-are-unique",
        ("Session.display_name", "It need not be unique."),
        forgets("CreateSession", "SESSION_ALREADY_EXISTS", key=lambda request: request.session.display_name),
    ),
]

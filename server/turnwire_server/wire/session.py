"""Sessions, to and from protobuf."""

from turnwire.v1 import session_pb2 as pb
from turnwire.v1.inference_pb2 import InferenceConfig as WireInferenceConfig
from turnwire.v1.session_service_pb2 import UpdateSessionRequest
from turnwire_server.domain.errors import InvalidFieldError, Violation
from turnwire_server.domain.inference import InferenceConfig
from turnwire_server.domain.session import InferenceRef, NewSession, Session, SessionChange, SessionOrigin, StepMode
from turnwire_server.wire import duration, json_text, timestamp
from turnwire_server.wire.inference import config_from_proto, config_to_proto

_CHANGEABLE = ("display_name", "labels", "metadata", "profile", "config")


def to_proto(session: Session) -> pb.Session:
    """Return a Session."""
    active, origin = session.active, session.origin
    return pb.Session(
        session_id=session.session_id,
        display_name=session.display_name,
        labels=session.labels,
        metadata=session.metadata,
        profile=session.profile,
        create_time=timestamp.to_proto(session.create_time),
        update_time=timestamp.to_proto(session.update_time),
        expire_time=timestamp.optional_to_proto(session.expire_time),
        revision=session.revision,
        turn_count=session.turn_count,
        head_sequence=session.head_sequence,
        log=session.log,
        active=pb.InferenceRef(session_id=active.session_id, inference_id=active.inference_id) if active else None,
        queued_count=session.queued_count,
        origin=pb.SessionOrigin(session_id=origin.session_id, index=origin.index) if origin else None,
        step_mode=session.step_mode is not None,
        config=optional_config_to_proto(session.config),
    )


def from_proto(message: pb.Session) -> Session:
    """Return a session."""
    active, origin = message.active, message.origin
    return Session(
        session_id=message.session_id,
        create_time=timestamp.from_proto(message.create_time),
        update_time=timestamp.from_proto(message.update_time),
        log=message.log,
        display_name=message.display_name,
        labels=dict(message.labels),
        metadata=dict(message.metadata),
        profile=message.profile,
        expire_time=timestamp.from_proto(message.expire_time) if message.HasField("expire_time") else None,
        revision=message.revision,
        turn_count=message.turn_count,
        head_sequence=message.head_sequence,
        active=InferenceRef(active.session_id, active.inference_id) if message.HasField("active") else None,
        queued_count=message.queued_count,
        origin=SessionOrigin(origin.session_id, origin.index) if message.HasField("origin") else None,
        step_mode=StepMode() if message.step_mode else None,
        config=config_from_proto(message.config),
    )


def optional_config_to_proto(config: InferenceConfig) -> WireInferenceConfig | None:
    """Return an InferenceConfig, None if nothing is set in it."""
    return None if config == InferenceConfig() else config_to_proto(config)


def new_session_to_proto(new: NewSession) -> pb.NewSession:
    """Return a NewSession."""
    return pb.NewSession(
        session_id=new.session_id,
        display_name=new.display_name,
        labels=new.labels,
        metadata=new.metadata,
        profile=new.profile,
        ttl=None if new.ttl is None else duration.to_proto(new.ttl),
        config=optional_config_to_proto(new.config),
    )


def new_session_from_proto(message: pb.NewSession, path: str) -> NewSession:
    """Return what a client said about a new session; `path` is the field of the request that says it.

    Errors: InvalidFieldError for what the rules in the contract's options cannot say.
    """
    if violations := tuple(json_text.map_violations(f"{path}.metadata", message.metadata)):
        raise InvalidFieldError(*violations)
    return NewSession(
        session_id=message.session_id,
        display_name=message.display_name,
        labels=dict(message.labels),
        metadata=dict(message.metadata),
        profile=message.profile,
        ttl=duration.from_proto(message.ttl) if message.HasField("ttl") else None,
        config=config_from_proto(message.config),
    )


def change_from_proto(request: UpdateSessionRequest) -> SessionChange:
    """Return the new values that the mask of the request names.

    Errors: InvalidFieldError for an empty mask, an unknown path, or metadata that is not JSON.
    """
    paths, session = request.update_mask.paths, request.session
    violations = [
        Violation(f"update_mask.paths[{position}]", f"must be one of {', '.join(_CHANGEABLE)}", "update_mask.path")
        for position, path in enumerate(paths)
        if path not in _CHANGEABLE
    ]
    if not paths:
        violations.append(Violation("update_mask", "must name at least one field", "update_mask.not_empty"))
    if "metadata" in paths:
        violations += json_text.map_violations("session.metadata", session.metadata)
    if violations:
        raise InvalidFieldError(*violations)
    return SessionChange(
        display_name=session.display_name if "display_name" in paths else None,
        labels=dict(session.labels) if "labels" in paths else None,
        metadata=dict(session.metadata) if "metadata" in paths else None,
        profile=session.profile if "profile" in paths else None,
        config=config_from_proto(session.config) if "config" in paths else None,
    )

"""Whether a start is accepted. Pure: the store calls it inside its transaction, after the idempotency gate."""

from turnwire_server.domain.errors import (
    EmptyTurnError,
    FeatureNotImplementedError,
    InvalidFieldError,
    SessionBusyError,
    TurnNotClosedError,
    Violation,
)
from turnwire_server.domain.inference import ConflictPolicy
from turnwire_server.domain.profile import Profiles
from turnwire_server.domain.session import NewSession
from turnwire_server.domain.tool import ToolPlacement
from turnwire_server.domain.turn import MAP_BYTES_MAX, TurnState, inherit_data, map_bytes
from turnwire_server.stores.start import Admission, SessionState, StartCommand


def decide_start(command: StartCommand, state: SessionState, profiles: Profiles) -> Admission:
    """Accept a start, or say why not.

    Errors: SessionBusyError, TurnNotClosedError, EmptyTurnError, InvalidFieldError, ProfileNotFoundError.
    """
    session_id = state.session.session_id
    if state.unfinished:  # the only policy so far is REJECT
        raise SessionBusyError(session_id=session_id, inference_id=state.unfinished[0].inference_id)
    parent = state.parent
    if command.parent is not None and parent is not None and parent.state is not TurnState.CLOSED:
        raise TurnNotClosedError(session_id=session_id, index=parent.index)
    if not command.input and (parent is None or parent.block_count == 0):
        raise EmptyTurnError(session_id=session_id)
    carried = inherit_data(parent.data if parent else {}, command.data)
    if map_bytes(carried) > MAP_BYTES_MAX:
        what = f"must have at most {MAP_BYTES_MAX} bytes in all, with what the parent carries"
        raise InvalidFieldError(Violation("data", what, "map_bytes_max"))
    if isinstance(command.target, NewSession):
        profiles.get(command.target.profile)
    profile = profiles.get(command.profile or state.session.profile)
    return Admission(profile.name, profile.engine, profile.config.overlaid(command.overrides.config))


def check_supported(command: StartCommand) -> None:
    """Refuse what the contract has and this server does not have yet. Errors: FeatureNotImplementedError."""
    if command.conflict_policy is not ConflictPolicy.REJECT:
        raise FeatureNotImplementedError(feature=f"conflict_policy {command.conflict_policy.name}")
    if command.overrides.output_schema:
        raise FeatureNotImplementedError(feature="output_schema")
    if any(tool.approval_required or tool.placement is ToolPlacement.SERVER for tool in command.overrides.tools):
        raise FeatureNotImplementedError(feature="tools with approval, and tools of the server")

"""Whether a start is accepted, and with what. Pure: the store calls it in a transaction, after the idempotency gate."""

from dataclasses import replace

from turnwire_server.domain.errors import (
    CapabilityMissingError,
    EmptyTurnError,
    InvalidFieldError,
    OverrideNotAllowedError,
    QueueFullError,
    SessionBusyError,
    TurnNotClosedError,
    Violation,
)
from turnwire_server.domain.inference import ConflictPolicy, InferenceConfig
from turnwire_server.domain.profile import Profile, Profiles
from turnwire_server.domain.session import NewSession
from turnwire_server.domain.turn import MAP_BYTES_MAX, TurnState, User, inherit_data, map_bytes
from turnwire_server.stores.start import Admission, SessionState, StartCommand


def decide_start(command: StartCommand, state: SessionState, profiles: Profiles, queue_depth_max: int) -> Admission:
    """Accept a start, or say why not.

    Errors: SessionBusyError, QueueFullError, TurnNotClosedError, EmptyTurnError, InvalidFieldError,
    ProfileNotFoundError, CapabilityMissingError, OverrideNotAllowedError.
    """
    _check_line(command.conflict_policy, state, queue_depth_max)
    _check_turn(command, state)
    if isinstance(command.target, NewSession):
        profiles.get(command.target.profile)
    profile = profiles.get(command.profile or state.session.profile)
    _check_overrides(command, state, profile)
    _check_capabilities(command, profile)
    config = profile.config.overlaid(state.session.config).overlaid(command.overrides.config)
    return Admission(profile.name, profile.engine, config)


def _check_line(policy: ConflictPolicy, state: SessionState, queue_depth_max: int) -> None:
    """Refuse a start that has no place in the line. What is displaced, the first in line, leaves its own."""
    if not state.unfinished:
        return
    session_id, first = state.session.session_id, state.unfinished[0]
    if policy is ConflictPolicy.REJECT:
        raise SessionBusyError(session_id=session_id, inference_id=first.inference_id)
    depth = sum(not each.is_active for each in state.unfinished)
    if policy is not ConflictPolicy.ENQUEUE and not first.is_active:
        depth -= 1
    if depth >= queue_depth_max:
        raise QueueFullError(session_id=session_id, queue_depth=depth, queue_depth_max=queue_depth_max)


def _check_turn(command: StartCommand, state: SessionState) -> None:
    session_id, parent = state.session.session_id, state.parent
    if command.parent is not None and parent is not None and parent.state is not TurnState.CLOSED:
        raise TurnNotClosedError(session_id=session_id, index=parent.index)
    if not command.input and (parent is None or parent.block_count == 0):
        raise EmptyTurnError(session_id=session_id)
    carried = inherit_data(parent.data if parent else {}, command.data)
    if map_bytes(carried) > MAP_BYTES_MAX:
        what = f"must have at most {MAP_BYTES_MAX} bytes in all, with what the parent carries"
        raise InvalidFieldError(Violation("data", what, "map_bytes_max"))


def _check_overrides(command: StartCommand, state: SessionState, profile: Profile) -> None:
    """Refuse a change that the profile does not allow, of the request or of the session."""
    overrides = command.overrides
    configs = (overrides.config, state.session.config)
    changes = {
        "model": any(config.model for config in configs),
        "config": any(replace(config, model="") != InferenceConfig() for config in configs),
        "tools": overrides.tools,
        "output_schema": overrides.output_schema,
        "engine_options": overrides.engine_options,
        "record_snapshots": overrides.record_snapshots,
    }
    for name, is_changed in changes.items():
        if is_changed and name not in profile.overrides:
            raise OverrideNotAllowedError(profile=profile.name, override=name)


def _check_capabilities(command: StartCommand, profile: Profile) -> None:
    needs = {
        "tools": command.overrides.tools,
        "structured_output": command.overrides.output_schema,
        "images": any(isinstance(block.kind, User) and block.kind.images for block in command.input),
    }
    for name, is_needed in needs.items():
        if is_needed and not getattr(profile.capabilities, name):
            raise CapabilityMissingError(profile=profile.name, capability=name)

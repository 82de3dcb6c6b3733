"""Pauses and snapshots of turns, to and from protobuf."""

from turnwire.v1 import debug_service_pb2 as pb
from turnwire_server.domain.session import PauseAction, StepMode
from turnwire_server.domain.turn import SnapshotPhase, TurnSnapshot
from turnwire_server.wire import duration, timestamp, turn


def step_mode_from_proto(request: pb.SetStepModeRequest) -> StepMode | None:
    """Return the step mode that a request sets, None for none."""
    if not request.enabled:
        return None
    standard = StepMode()
    return StepMode(
        duration.from_proto(request.deadline) if request.HasField("deadline") else standard.deadline,
        action_from_proto(request.deadline_action),
    )


def action_from_proto(action: pb.PauseAction.ValueType) -> PauseAction:
    """Return what to do with a pause; UNSPECIFIED means CONTINUE."""
    return PauseAction(action or PauseAction.CONTINUE)


def action_to_proto(action: PauseAction) -> pb.PauseAction.ValueType:
    """Return a PauseAction."""
    return pb.PauseAction.ValueType(action)


def snapshot_to_proto(snapshot: TurnSnapshot) -> pb.TurnSnapshot:
    """Return a TurnSnapshot."""
    mark = snapshot.mark
    return pb.TurnSnapshot(
        phase=pb.SnapshotPhase.ValueType(mark.phase),
        iteration=mark.iteration,
        turn=turn.to_proto(snapshot.turn),
        create_time=timestamp.to_proto(mark.create_time),
    )


def phase_from_proto(phase: pb.SnapshotPhase.ValueType) -> SnapshotPhase | None:
    """Return a phase; None for UNSPECIFIED, which means all."""
    return SnapshotPhase(phase) if phase else None

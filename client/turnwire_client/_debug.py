"""What a client can ask about the inside of an inference: step mode, and snapshots of its turn."""

from collections.abc import AsyncGenerator
from typing import Literal, TypeAlias

from turnwire.v1.debug_service_pb2 import (
    ListPausesRequest,
    ListTurnSnapshotsRequest,
    Pause,
    PauseAction,
    ReleasePauseRequest,
    SetStepModeRequest,
    SnapshotPhase,
    TurnSnapshot,
)
from turnwire.v1.inference_pb2 import Inference
from turnwire_client._requests import Seconds, to_duration
from turnwire_client._transport import Transport

# What becomes of a pause: on without further ones, on to the next one, or the end with STEP_ABORTED.
Release: TypeAlias = Literal["continue", "step", "abort"]

RELEASES: dict[Release, PauseAction.ValueType] = {
    "continue": PauseAction.PAUSE_ACTION_CONTINUE,
    "step": PauseAction.PAUSE_ACTION_STEP,
    "abort": PauseAction.PAUSE_ACTION_ABORT,
}

# Where in the loop a snapshot was taken; see SnapshotPhase.
Phase: TypeAlias = Literal["pre_inference", "post_inference", "post_tools", "final"]

PHASES: dict[Phase, SnapshotPhase.ValueType] = {
    "pre_inference": SnapshotPhase.SNAPSHOT_PHASE_PRE_INFERENCE,
    "post_inference": SnapshotPhase.SNAPSHOT_PHASE_POST_INFERENCE,
    "post_tools": SnapshotPhase.SNAPSHOT_PHASE_POST_TOOLS,
    "final": SnapshotPhase.SNAPSHOT_PHASE_FINAL,
}


class DebugCalls:
    """The part of Client that is about step mode and snapshots."""

    _transport: Transport

    async def set_step_mode(
        self,
        session_id: str,
        enabled: bool,
        *,
        deadline: Seconds | None = None,
        deadline_action: Literal["continue", "abort"] = "continue",
    ) -> None:
        """Has the inferences of a session pause after each engine call and each batch of tools, or not any more.

        A pause that nobody releases within `deadline` (30 s unless given, at most a day) ends with `deadline_action`.
        Turning it off releases a pause. Raises SessionNotFoundError.
        """
        request = SetStepModeRequest(
            session_id=session_id,
            enabled=enabled,
            deadline=None if deadline is None else to_duration(deadline),
            deadline_action=RELEASES[deadline_action],
        )
        await self._transport.call(self._transport.debug.SetStepMode, request)

    async def list_pauses(self, session_id: str = "") -> AsyncGenerator[Pause, None]:
        """The pauses that wait for release, of a session or of all; that of the oldest inference comes first."""
        request = ListPausesRequest(session_id=session_id)
        while True:
            response = await self._transport.call(self._transport.debug.ListPauses, request)
            for pause in response.pauses:
                yield pause
            request.page_token = response.next_page_token
            if not request.page_token:
                return

    async def release_pause(self, pause: str, action: Release = "continue") -> Inference:
        """Ends a pause, by its id, and returns the inference as it is then.

        Raises PauseNotFoundError, also when somebody else, or its deadline, was quicker.
        """
        request = ReleasePauseRequest(pause=pause, action=RELEASES[action])
        return (await self._transport.call(self._transport.debug.ReleasePause, request)).inference

    async def list_turn_snapshots(
        self, inference_id: str, *, phase: Phase | None = None
    ) -> AsyncGenerator[TurnSnapshot, None]:
        """What the turn was between the phases of its inference, of one phase or of all, the oldest first.

        There are some if start_inference or the profile asked for it with `record_snapshots`.
        """
        wanted = PHASES[phase] if phase else SnapshotPhase.SNAPSHOT_PHASE_UNSPECIFIED
        request = ListTurnSnapshotsRequest(inference_id=inference_id, phase=wanted)
        while True:
            response = await self._transport.call(self._transport.debug.ListTurnSnapshots, request)
            for snapshot in response.snapshots:
                yield snapshot
            request.page_token = response.next_page_token
            if not request.page_token:
                return

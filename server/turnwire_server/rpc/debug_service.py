"""DebugService: translates, calls the runtime, translates back."""

from turnwire.v1 import debug_service_pb2 as pb
from turnwire_server.domain.inference import Inference
from turnwire_server.rpc.call import Caller
from turnwire_server.rpc.paging import page_size, page_token
from turnwire_server.runtime.checkpoint import Pause
from turnwire_server.runtime.runtime import Runtime
from turnwire_server.wire import debug, inference, timestamp
from turnwire_server.wire.page_token import decode_page_token, filters_of


class DebugService:
    """Step control and snapshots of turns."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def set_step_mode(self, request: pb.SetStepModeRequest, caller: Caller) -> pb.SetStepModeResponse:
        """Serve SetStepMode."""
        step_mode = debug.step_mode_from_proto(request)
        await self._runtime.set_step_mode(caller.principal, request.session_id, step_mode)
        return pb.SetStepModeResponse()

    async def list_pauses(self, request: pb.ListPausesRequest, caller: Caller) -> pb.ListPausesResponse:
        """Serve ListPauses."""
        filters = filters_of(request)
        after = decode_page_token("ListPauses", filters, request.page_token) if request.page_token else None
        page = await self._runtime.list_pauses(
            caller.principal, request.session_id, page_size(request.page_size), after
        )
        return pb.ListPausesResponse(
            pauses=[_pause_to_proto(paused, pause) for paused, pause in page.items],
            next_page_token=page_token("ListPauses", filters, page.next),
        )

    async def release_pause(self, request: pb.ReleasePauseRequest, caller: Caller) -> pb.ReleasePauseResponse:
        """Serve ReleasePause."""
        action = debug.action_from_proto(request.action)
        released = await self._runtime.release_pause(caller.principal, request.pause, action)
        return pb.ReleasePauseResponse(inference=inference.to_proto(released))

    async def list_turn_snapshots(
        self, request: pb.ListTurnSnapshotsRequest, caller: Caller
    ) -> pb.ListTurnSnapshotsResponse:
        """Serve ListTurnSnapshots."""
        filters = filters_of(request)
        after = decode_page_token("ListTurnSnapshots", filters, request.page_token) if request.page_token else None
        page = await self._runtime.store.list_turn_snapshots(
            caller.principal,
            request.inference_id,
            debug.phase_from_proto(request.phase),
            page_size(request.page_size),
            after,
        )
        return pb.ListTurnSnapshotsResponse(
            snapshots=[debug.snapshot_to_proto(each) for each in page.items],
            next_page_token=page_token("ListTurnSnapshots", filters, page.next),
        )


def _pause_to_proto(paused: Inference, pause: Pause) -> pb.Pause:
    return pb.Pause(
        id=pause.id,
        session_id=paused.session_id,
        inference_id=paused.inference_id,
        phase=pause.phase,
        summary=pause.summary,
        create_time=timestamp.to_proto(pause.create_time),
        deadline_time=timestamp.to_proto(pause.deadline_time),
        deadline_action=debug.action_to_proto(pause.deadline_action),
    )

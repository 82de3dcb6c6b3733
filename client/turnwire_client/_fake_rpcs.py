"""The rpcs of FakeServer: its answers, and the faults it was told to have."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypeVar

import grpc
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from turnwire.v1 import engine_service_pb2 as epb
from turnwire.v1 import inference_service_pb2 as pb
from turnwire.v1 import session_service_pb2 as spb
from turnwire.v1.event_pb2 import Event
from turnwire.v1.inference_pb2 import ConflictPolicy, Inference, InferenceState
from turnwire.v1.turn_pb2 import Turn, TurnState, TurnView
from turnwire_client._errors import ERRORS
from turnwire_client._fake import TERMINAL, FakeSession, FakeStore, Refused, finish, subset
from turnwire_client._fake_profiles import FakeProfiles
from turnwire_client._fake_snapshot import snapshot_parts
from turnwire_client._requests import to_duration
from turnwire_client._status import DETAILS_KEY, DOMAIN

# How a stream breaks: with a status, without one, with the polite `end`, or by saying nothing any more.
Cut: TypeAlias = Literal["unavailable", "eof", "draining", "silence"]

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Q = TypeVar("Q", bound=Message)
A = TypeVar("A", bound=Message)

HOLD_SECONDS = 20.0
HOLD_SECONDS_MAX = 50.0


@dataclass(slots=True)
class Fault:
    """What happens to the next `times` requests of an rpc: refused, or carried out and the reply lost, with a code."""

    rpc: str
    what: Refused | grpc.StatusCode
    retry_delay: float | None = None
    times: int = 1


class FakeRpcs:
    """Answers from a FakeStore. `faults` and `cuts` are used up in order; `requests` grows with every request."""

    def __init__(self, store: FakeStore) -> None:
        self.requests: list[Message] = []
        self.profiles = FakeProfiles()
        self.holds_waits = True
        self.faults: list[Fault] = []
        self.cuts: deque[tuple[int, Cut]] = deque()
        self._store = store

    def handlers(self) -> tuple[grpc.GenericRpcHandler, ...]:
        """What a grpc.aio server needs to serve them."""
        inference = {
            "StartInference": self._unary(pb.StartInferenceRequest, self._start),
            "Wait": self._unary(pb.WaitRequest, self._wait),
            "Cancel": self._unary(pb.CancelRequest, self._cancel),
            "GetInference": self._unary(pb.GetInferenceRequest, self._get_inference),
            "ListInferences": self._unary(pb.ListInferencesRequest, self._list_inferences),
            "SubscribeEvents": grpc.unary_stream_rpc_method_handler(
                self._subscribe,
                request_deserializer=pb.SubscribeEventsRequest.FromString,
                response_serializer=pb.SubscribeEventsResponse.SerializeToString,
            ),
        }
        session = {
            "CreateSession": self._unary(spb.CreateSessionRequest, self._create_session),
            "ForkSession": self._unary(spb.ForkSessionRequest, self._fork_session),
            "GetSession": self._unary(spb.GetSessionRequest, self._get_session),
            "ListSessions": self._unary(spb.ListSessionsRequest, self._list_sessions),
            "UpdateSession": self._unary(spb.UpdateSessionRequest, self._update_session),
            "DeleteSession": self._unary(spb.DeleteSessionRequest, self._delete_session),
            "GetTurn": self._unary(spb.GetTurnRequest, self._get_turn),
            "ListTurns": self._unary(spb.ListTurnsRequest, self._list_turns),
        }
        engine = {
            "ListEngines": self._unary(epb.ListEnginesRequest, self.profiles.list_engines),
            "ListProfiles": self._unary(epb.ListProfilesRequest, self.profiles.list_profiles),
            "GetProfile": self._unary(epb.GetProfileRequest, self.profiles.get_profile),
        }
        return (
            grpc.method_handlers_generic_handler("turnwire.v1.InferenceService", inference),
            grpc.method_handlers_generic_handler("turnwire.v1.SessionService", session),
            grpc.method_handlers_generic_handler("turnwire.v1.EngineService", engine),
        )

    def _unary(self, kind: type[Q], answer: Callable[[Q], Awaitable[A]]) -> Any:
        rpc = kind.DESCRIPTOR.name.removesuffix("Request")

        async def handle(request: Q, context: Context) -> A:
            self.requests.append(request)
            fault = self._next_fault(rpc)
            if fault is not None and isinstance(fault.what, Refused):
                await _refuse(context, fault.what, fault.retry_delay)
            try:
                response = await answer(request)
            except Refused as refused:
                await _refuse(context, refused)
                raise
            if fault is not None and isinstance(fault.what, grpc.StatusCode):
                await context.abort(fault.what, "the reply was lost, as told")
            return response

        return grpc.unary_unary_rpc_method_handler(
            handle, request_deserializer=kind.FromString, response_serializer=kind.SerializeToString
        )

    def _next_fault(self, rpc: str) -> Fault | None:
        fault = next((fault for fault in self.faults if fault.rpc == rpc), None)
        if fault is not None:
            fault.times -= 1
            if not fault.times:
                self.faults.remove(fault)
        return fault

    # --- inferences ---------------------------------------------------------------------------------

    async def _start(self, request: pb.StartInferenceRequest) -> pb.StartInferenceResponse:
        content = pb.StartInferenceRequest()
        content.CopyFrom(request)
        content.ClearField("idempotency_key")
        content.ClearField("timeout")
        body = content.SerializeToString(deterministic=True)
        known = self._store.remembered("StartInference", request.idempotency_key, body)
        if known is not None:
            return pb.StartInferenceResponse(inference=self._store.inference(known)[1], created=False)
        if request.conflict_policy > ConflictPolicy.CONFLICT_POLICY_REJECT:
            raise Refused("FEATURE_NOT_IMPLEMENTED", feature="conflict_policy")
        if request.overrides.output_schema:
            raise Refused("FEATURE_NOT_IMPLEMENTED", feature="output_schema")
        _, inference = self._store.start(request)
        self._store.remember("StartInference", request.idempotency_key, body, inference.inference_id)
        return pb.StartInferenceResponse(inference=inference, created=True)

    async def _wait(self, request: pb.WaitRequest) -> pb.WaitResponse:
        session, inference = self._store.inference(request.inference_id)
        hold = request.timeout.ToTimedelta().total_seconds() if request.HasField("timeout") else HOLD_SECONDS
        try:
            async with asyncio.timeout(min(hold, HOLD_SECONDS_MAX) if self.holds_waits else 0):
                while inference.state not in TERMINAL and not session.deleted:
                    await session.wait_change()
        except TimeoutError:
            pass
        self._store.inference(request.inference_id)
        response = pb.WaitResponse(inference=inference)
        turn = session.turns[inference.turn_index]
        if request.turn_view and turn.state == TurnState.TURN_STATE_CLOSED:
            response.turn.CopyFrom(_viewed(turn, request.turn_view))
        return response

    async def _cancel(self, request: pb.CancelRequest) -> pb.CancelResponse:
        if request.WhichOneof("target") == "session_id":
            active = self._store.session(request.session_id).proto.active.inference_id
            if not active:
                raise Refused("NO_ACTIVE_INFERENCE", session_id=request.session_id)
            session, inference = self._store.inference(active)
        else:
            session, inference = self._store.inference(request.inference_id)
        if inference.state not in TERMINAL:
            inference.cancel_requested_time.GetCurrentTime()
            inference.cancel_reason = request.reason
            finish(session, inference, InferenceState.INFERENCE_STATE_CANCELLED, reason=request.reason)
        return pb.CancelResponse(inference=inference)

    async def _get_inference(self, request: pb.GetInferenceRequest) -> pb.GetInferenceResponse:
        return pb.GetInferenceResponse(inference=self._store.inference(request.inference_id)[1])

    async def _list_inferences(self, request: pb.ListInferencesRequest) -> pb.ListInferencesResponse:
        found = reversed(self._store.session(request.session_id).inferences.values())
        return pb.ListInferencesResponse(
            inferences=[each for each in found if not request.states or each.state in request.states]
        )

    # --- sessions and turns -------------------------------------------------------------------------

    async def _create_session(self, request: spb.CreateSessionRequest) -> spb.CreateSessionResponse:
        body = request.session.SerializeToString(deterministic=True)
        known = self._store.remembered("CreateSession", request.idempotency_key, body)
        if known is not None:
            return spb.CreateSessionResponse(session=self._store.session(known).proto, created=False)
        session = self._store.create_session(request.session)
        self._store.remember("CreateSession", request.idempotency_key, body, session.proto.session_id)
        return spb.CreateSessionResponse(session=session.proto, created=True)

    async def _fork_session(self, request: spb.ForkSessionRequest) -> spb.ForkSessionResponse:
        content = spb.ForkSessionRequest()
        content.CopyFrom(request)
        content.ClearField("idempotency_key")
        body = content.SerializeToString(deterministic=True)
        known = self._store.remembered("ForkSession", request.idempotency_key, body)
        if known is not None:
            return spb.ForkSessionResponse(session=self._store.session(known).proto, created=False)
        session = self._store.fork_session(request)
        self._store.remember("ForkSession", request.idempotency_key, body, session.proto.session_id)
        return spb.ForkSessionResponse(session=session.proto, created=True)

    async def _get_session(self, request: spb.GetSessionRequest) -> spb.GetSessionResponse:
        return spb.GetSessionResponse(session=self._store.session(request.session_id).proto)

    async def _list_sessions(self, request: spb.ListSessionsRequest) -> spb.ListSessionsResponse:
        found = reversed(self._store.sessions.values())
        return spb.ListSessionsResponse(
            sessions=[each.proto for each in found if subset(request.labels, each.proto.labels)]
        )

    async def _update_session(self, request: spb.UpdateSessionRequest) -> spb.UpdateSessionResponse:
        session = self._store.session(request.session.session_id)
        _check_revision(session, request)
        request.update_mask.MergeMessage(request.session, session.proto, True, True)
        session.proto.revision += 1
        session.proto.update_time.GetCurrentTime()
        return spb.UpdateSessionResponse(session=session.proto)

    async def _delete_session(self, request: spb.DeleteSessionRequest) -> spb.DeleteSessionResponse:
        session = self._store.session(request.session_id)
        _check_revision(session, request)
        active = session.proto.active.inference_id
        if active and not request.force:
            raise Refused("SESSION_BUSY", session_id=request.session_id, inference_id=active)
        del self._store.sessions[request.session_id]
        session.deleted = True
        session.wake()
        return spb.DeleteSessionResponse()

    async def _get_turn(self, request: spb.GetTurnRequest) -> spb.GetTurnResponse:
        if request.WhichOneof("target") == "inference_id":
            session, inference = self._store.inference(request.inference_id)
            index = inference.turn_index
        else:
            session = self._store.session(request.at.session_id)
            index = request.at.index if request.at.HasField("index") else len(session.turns) - 1
        if not 0 <= index < len(session.turns):
            raise Refused("TURN_NOT_FOUND", session_id=session.proto.session_id, index=index)
        view = request.view or TurnView.TURN_VIEW_FULL
        return spb.GetTurnResponse(turn=_viewed(session.turns[index], view))

    async def _list_turns(self, request: spb.ListTurnsRequest) -> spb.ListTurnsResponse:
        session = self._store.session(request.session_id)
        turns = list(reversed(session.turns)) if request.newest_first else session.turns
        view = request.view or TurnView.TURN_VIEW_BASIC
        return spb.ListTurnsResponse(turns=[_viewed(turn, view) for turn in turns])

    # --- events -------------------------------------------------------------------------------------

    async def _subscribe(
        self, request: pb.SubscribeEventsRequest, context: Context
    ) -> AsyncIterator[pb.SubscribeEventsResponse]:
        self.requests.append(request)
        fault = self._next_fault("SubscribeEvents")
        if fault is not None and isinstance(fault.what, Refused):
            await _refuse(context, fault.what, fault.retry_delay)
        try:
            session, position = self._open(request)
        except Refused as refused:
            await _refuse(context, refused)
            raise
        room, cut = self.cuts.popleft() if self.cuts else (-1, None)
        async for response in _stream(session, request, position):
            if cut is not None and (response.events or response.snapshot.events):
                if not room:
                    break
                room -= 1
            yield response
        else:
            return
        if cut == "unavailable":
            await context.abort(grpc.StatusCode.UNAVAILABLE, "cut, as told")
        elif cut == "draining":
            reason = pb.SubscriptionEndReason.SUBSCRIPTION_END_REASON_DRAINING
            at = response.after_sequence
            yield pb.SubscribeEventsResponse(
                after_sequence=at, through_sequence=at, end=pb.SubscriptionEnd(reason=reason)
            )
        elif cut == "silence":
            await asyncio.Event().wait()

    def _open(self, request: pb.SubscribeEventsRequest) -> tuple[FakeSession, int]:
        session = self._store.session(request.session_id)
        session_id, head = session.proto.session_id, len(session.events)
        if request.inference_id and request.inference_id not in session.inferences:
            raise Refused("INFERENCE_NOT_FOUND", inference_id=request.inference_id)
        if request.log and request.log != session.proto.log:
            raise Refused("LOG_REPLACED", session_id=session_id, log=session.proto.log)
        start = request.WhichOneof("start")
        after = {"after_sequence": request.after_sequence, "from_beginning": 0}.get(str(start), head)
        if after > head:
            raise Refused("CURSOR_AHEAD", session_id=session_id, after_sequence=after, head_sequence=head)
        return session, after


async def _stream(
    session: FakeSession, request: pb.SubscribeEventsRequest, position: int
) -> AsyncIterator[pb.SubscribeEventsResponse]:
    """One response per event, the hardest case for a client."""
    head = len(session.events)
    opened = pb.SubscriptionOpened(log=session.proto.log, earliest_sequence=1, head_sequence=head)
    yield pb.SubscribeEventsResponse(after_sequence=position, through_sequence=position, opened=opened)
    wanted = request.inference_id
    if request.HasField("snapshot"):
        for part in snapshot_parts(event for event in session.events[:head] if wanted in {"", event.inference_id}):
            yield pb.SubscribeEventsResponse(after_sequence=head, through_sequence=head, snapshot=part)
    ends = pb.SubscriptionEndReason
    reason = ends.SUBSCRIPTION_END_REASON_UNSPECIFIED
    while not reason:
        while position < len(session.events):
            event: Event = session.events[position]
            shown = [event] if wanted in {"", event.inference_id} else []
            yield pb.SubscribeEventsResponse(events=shown, after_sequence=position, through_sequence=position + 1)
            position += 1
        inference: Inference | None = session.inferences.get(wanted)
        if session.deleted:
            reason = ends.SUBSCRIPTION_END_REASON_SESSION_DELETED
        elif request.until == pb.SubscribeUntil.SUBSCRIBE_UNTIL_CAUGHT_UP:
            reason = ends.SUBSCRIPTION_END_REASON_CAUGHT_UP
        elif (
            request.until == pb.SubscribeUntil.SUBSCRIBE_UNTIL_INFERENCE_END
            and inference is not None
            and inference.state in TERMINAL
        ):
            reason = ends.SUBSCRIPTION_END_REASON_INFERENCE_FINISHED
        elif position == len(session.events):
            await session.wait_change()
    end = pb.SubscriptionEnd(reason=reason)
    yield pb.SubscribeEventsResponse(after_sequence=position, through_sequence=position, end=end)


def _viewed(turn: Turn, view: TurnView.ValueType) -> Turn:
    seen = Turn()
    seen.CopyFrom(turn)
    if view == TurnView.TURN_VIEW_BASIC:
        seen.ClearField("blocks")
    elif view == TurnView.TURN_VIEW_DELTA:
        del seen.blocks[: turn.inherited_block_count]
    return seen


def _check_revision(session: FakeSession, request: spb.UpdateSessionRequest | spb.DeleteSessionRequest) -> None:
    if request.HasField("revision") and request.revision != session.proto.revision:
        raise Refused("REVISION_MISMATCH", session_id=session.proto.session_id, revision=session.proto.revision)


async def _refuse(context: Context, refused: Refused, retry_delay: float | None = None) -> None:
    """Aborts the rpc with a status that has the catalogue's details."""
    kind = ERRORS[refused.reason]
    metadata = {key: refused.metadata.get(key, "") for key in kind.metadata_keys}
    status = Status(code=kind.code.value[0], message="as told")
    status.details.add().Pack(ErrorInfo(reason=refused.reason, domain=DOMAIN, metadata=metadata))
    if retry_delay is not None:
        status.details.add().Pack(RetryInfo(retry_delay=to_duration(retry_delay)))
    await context.abort(kind.code, status.message, ((DETAILS_KEY, status.SerializeToString()),))

"""InferenceService: translates, calls the runtime, translates back."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from turnwire.v1 import inference_service_pb2 as pb
from turnwire_server.domain.errors import InvalidFieldError, LogReplacedError, Violation
from turnwire_server.domain.event import Chunk
from turnwire_server.domain.ids import Mint
from turnwire_server.domain.inference import InferenceState
from turnwire_server.domain.session import NewSession
from turnwire_server.domain.turn import TurnView
from turnwire_server.events.subscription import (
    RESPONSE_BYTES_AIM,
    SEQUENCE_MAX,
    Delivery,
    StartKind,
    Subscription,
    Until,
    check_cursor,
    read_inference_of,
)
from turnwire_server.events.turnstile import Turnstile
from turnwire_server.rpc.call import Caller
from turnwire_server.rpc.paging import BLOCKS_MAX, page_size, page_token, read_turn_of, turn_page_token
from turnwire_server.runtime.runtime import Runtime
from turnwire_server.stores.page import LogPage
from turnwire_server.stores.start import Idempotency, StartCommand
from turnwire_server.wire import duration, inference, json_text, session, tool, turn
from turnwire_server.wire.fingerprint import fingerprint
from turnwire_server.wire.page_token import decode_page_token, filters_of

# Contract: the rpc Wait.
WAIT_SECONDS_DEFAULT = 20.0
WAIT_SECONDS_MAX = 50.0
WAIT_SECONDS_BEFORE_DEADLINE = 0.5

EVENTS_PAGE_DEFAULT = 1000


class InferenceService:
    """The rpcs about inferences and their events."""

    def __init__(self, runtime: Runtime, mint: Mint, turnstile: Turnstile) -> None:
        self._runtime = runtime
        self._store = runtime.store
        self._mint = mint
        self._turnstile = turnstile

    async def start_inference(self, request: pb.StartInferenceRequest, caller: Caller) -> pb.StartInferenceResponse:
        """Serve StartInference."""
        started = await self._runtime.start(_start_command(request, caller.principal, self._mint))
        return pb.StartInferenceResponse(inference=inference.to_proto(started.inference), created=started.created)

    async def wait(self, request: pb.WaitRequest, caller: Caller) -> pb.WaitResponse:
        """Serve Wait."""
        seconds = WAIT_SECONDS_DEFAULT
        if request.HasField("timeout"):
            seconds = min(duration.from_proto(request.timeout).total_seconds(), WAIT_SECONDS_MAX)
        if caller.seconds_left is not None:
            seconds = min(seconds, max(0.0, caller.seconds_left - WAIT_SECONDS_BEFORE_DEADLINE))
        until = inference.wait_until_from_proto(request.until)
        reached = await self._runtime.wait(caller.principal, request.inference_id, seconds, until)
        response = pb.WaitResponse(inference=inference.to_proto(reached))
        if request.turn_view and reached.state.is_terminal and reached.turn_index is not None:
            view = TurnView(request.turn_view)
            page = await read_turn_of(self._store, caller.principal, reached, view, 0, BLOCKS_MAX)
            response.turn.CopyFrom(turn.to_proto(page.turn))
            response.turn_page_token = turn_page_token(reached.inference_id, view, page)
        return response

    async def cancel(self, request: pb.CancelRequest, caller: Caller) -> pb.CancelResponse:
        """Serve Cancel."""
        is_session = request.WhichOneof("target") == "session_id"
        target = request.session_id if is_session else request.inference_id
        cancelled = await self._runtime.cancel(caller.principal, target, request.reason, is_session=is_session)
        return pb.CancelResponse(inference=inference.to_proto(cancelled))

    async def subscribe_events(self, request: pb.SubscribeEventsRequest, caller: Caller) -> AsyncGenerator[bytes]:
        """Serve SubscribeEvents."""
        cancel_after = None
        if request.HasField("cancel_after_disconnect"):
            cancel_after = duration.from_proto(request.cancel_after_disconnect).total_seconds()
        watched = self._runtime.subscribe(_subscription(request, caller.principal), cancel_after)
        async with aclosing(watched) as deliveries:
            async for delivery in deliveries:
                await self._turnstile.wait_to_pass(delivery.size)
                yield _encode_delivery(delivery)

    async def get_inference(self, request: pb.GetInferenceRequest, caller: Caller) -> pb.GetInferenceResponse:
        """Serve GetInference."""
        found = await self._store.get_inference(caller.principal, request.inference_id)
        return pb.GetInferenceResponse(inference=inference.to_proto(found))

    async def list_inferences(self, request: pb.ListInferencesRequest, caller: Caller) -> pb.ListInferencesResponse:
        """Serve ListInferences."""
        states = [InferenceState(state) for state in request.states if state]
        filters = filters_of(request)
        before = decode_page_token("ListInferences", filters, request.page_token) if request.page_token else None
        page = await self._store.list_inferences(
            caller.principal, request.session_id, states, page_size(request.page_size), before
        )
        return pb.ListInferencesResponse(
            inferences=[inference.to_proto(each) for each in page.items],
            next_page_token=page_token("ListInferences", filters, page.next),
        )

    async def list_events(self, request: pb.ListEventsRequest, caller: Caller) -> bytes:
        """Serve ListEvents."""
        after, filters = request.after_sequence, filters_of(request)
        if request.page_token:
            log = (await self._store.get_session(caller.principal, request.session_id)).log
            if request.log and request.log != log:
                raise LogReplacedError(session_id=request.session_id, log=log)
            after = decode_page_token("ListEvents", filters + log.encode(), request.page_token)
        page = await self._store.read_log(
            caller.principal, request.session_id, min(after, SEQUENCE_MAX), RESPONSE_BYTES_AIM, request.inference_id
        )
        if request.inference_id:
            await read_inference_of(self._store, caller.principal, request.session_id, request.inference_id)
        if not after:  # 0 means from the first event that is retained, wherever that is
            after = page.earliest_sequence - 1
        check_cursor(request.session_id, request.log, after, page)
        chunks, through = _first_events(page, request.page_size or EVENTS_PAGE_DEFAULT)
        next_page = through if through < page.head_sequence else None
        rest = pb.ListEventsResponse(
            after_sequence=after,
            through_sequence=through,
            next_page_token=page_token("ListEvents", filters + page.log.encode(), next_page),
            log=page.log,
            head_sequence=page.head_sequence,
            earliest_sequence=page.earliest_sequence,
        )
        return b"".join((*(chunk.data for chunk in chunks), rest.SerializeToString()))

    async def submit_tool_results(
        self, request: pb.SubmitToolResultsRequest, caller: Caller
    ) -> pb.SubmitToolResultsResponse:
        """Serve SubmitToolResults."""
        outcomes = tool.outcomes_from_proto(request.outcomes, "outcomes")
        idempotency = None
        if request.idempotency_key:
            content = fingerprint(request, ("idempotency_key",))
            idempotency = Idempotency("SubmitToolResults", request.idempotency_key, content)
        taken, pending = await self._runtime.submit(caller.principal, request.inference_id, outcomes, idempotency)
        return pb.SubmitToolResultsResponse(inference=inference.to_proto(taken), pending_tool_calls=pending)


def _start_command(request: pb.StartInferenceRequest, principal: str, mint: Mint) -> StartCommand:
    target: str | NewSession = request.session_id
    if request.HasField("new_session"):
        target = session.new_session_from_proto(request.new_session, "new_session")
    violations = [
        *json_text.map_violations("metadata", request.metadata),
        *json_text.map_violations("data", request.data),
    ]
    if violations:
        raise InvalidFieldError(*violations)
    idempotency = None
    if request.idempotency_key:
        content = fingerprint(request, ("idempotency_key", "timeout"))
        idempotency = Idempotency("StartInference", request.idempotency_key, content)
    return StartCommand(
        principal,
        mint(),
        target,
        input=turn.input_from_proto(request.input, mint),
        parent=request.parent if request.HasField("parent") else None,
        profile=request.profile,
        overrides=inference.overrides_from_proto(request.overrides),
        conflict_policy=inference.conflict_policy_from_proto(request.conflict_policy),
        idempotency=idempotency,
        timeout=duration.from_proto(request.timeout) if request.HasField("timeout") else None,
        attempts_max=request.attempts_max if request.HasField("attempts_max") else 1,
        metadata=dict(request.metadata),
        data=dict(request.data),
    )


def _subscription(request: pb.SubscribeEventsRequest, principal: str) -> Subscription:
    start = request.WhichOneof("start")
    if start is None:
        raise InvalidFieldError(Violation("start", "exactly one field is required in oneof", "required"))
    return Subscription(
        principal,
        request.session_id,
        StartKind(start),
        request.after_sequence,
        request.inference_id,
        Until(request.until or Until.FOLLOW),
        request.log,
    )


def _encode_delivery(delivery: Delivery) -> bytes:
    rest = pb.SubscribeEventsResponse(
        after_sequence=delivery.after_sequence, through_sequence=delivery.through_sequence
    )
    if delivery.opened:
        rest.opened.log = delivery.opened.log
        rest.opened.earliest_sequence = delivery.opened.earliest_sequence
        rest.opened.head_sequence = delivery.opened.head_sequence
    if delivery.snapshot:
        rest.snapshot.MergeFromString(b"".join(delivery.snapshot.frames))  # frames have the tag of SnapshotPart.events
        rest.snapshot.last = delivery.snapshot.is_last
    if delivery.end:
        rest.end.reason = pb.SubscriptionEndReason.ValueType(delivery.end)
    return b"".join((*delivery.frames, rest.SerializeToString()))


def _first_events(page: LogPage, count: int) -> tuple[list[Chunk], int]:
    """Return at most `count` events of a page, and the sequence up to which that reaches."""
    taken: list[Chunk] = []
    for chunk in page.chunks:
        part = chunk.cut(0, chunk.first_sequence + count - 1)
        if part is None:
            break
        taken.append(part)
        count -= part.last_sequence - part.first_sequence + 1
        if part.last_sequence < chunk.last_sequence:
            break
    if len(taken) == len(page.chunks) and (not taken or taken[-1] is page.chunks[-1]):
        return taken, page.through_sequence
    return taken, taken[-1].last_sequence

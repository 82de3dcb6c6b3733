"""SessionService: translates, calls the store, translates back."""

from turnwire.v1 import session_service_pb2 as pb
from turnwire.v1 import turn_pb2
from turnwire_server.domain.errors import TurnNotOpenedError
from turnwire_server.domain.turn import TurnView
from turnwire_server.rpc.call import Caller
from turnwire_server.rpc.paging import (
    BLOCKS_MAX,
    blocks_token,
    decode_blocks_token,
    page_size,
    page_token,
    read_turn_of,
)
from turnwire_server.runtime.runtime import Runtime
from turnwire_server.stores.start import Idempotency
from turnwire_server.wire import session, turn
from turnwire_server.wire.fingerprint import fingerprint
from turnwire_server.wire.page_token import decode_page_token, filters_of


class SessionService:
    """The rpcs about sessions and their turns."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._store = runtime.store

    async def create_session(self, request: pb.CreateSessionRequest, caller: Caller) -> pb.CreateSessionResponse:
        """Serve CreateSession."""
        new = session.new_session_from_proto(request.session, "session")
        guard = _guard("CreateSession", request)
        made, created = await self._runtime.create_session(caller.principal, new, guard)
        return pb.CreateSessionResponse(session=session.to_proto(made), created=created)

    async def fork_session(self, request: pb.ForkSessionRequest, caller: Caller) -> pb.ForkSessionResponse:
        """Serve ForkSession."""
        new = session.new_session_from_proto(request.session, "session")
        index = request.index if request.HasField("index") else None
        guard = _guard("ForkSession", request)
        made, created = await self._runtime.fork_session(caller.principal, request.session_id, index, new, guard)
        return pb.ForkSessionResponse(session=session.to_proto(made), created=created)

    async def get_session(self, request: pb.GetSessionRequest, caller: Caller) -> pb.GetSessionResponse:
        """Serve GetSession."""
        found = await self._store.get_session(caller.principal, request.session_id)
        return pb.GetSessionResponse(session=session.to_proto(found))

    async def list_sessions(self, request: pb.ListSessionsRequest, caller: Caller) -> pb.ListSessionsResponse:
        """Serve ListSessions."""
        filters = filters_of(request)
        before = decode_page_token("ListSessions", filters, request.page_token) if request.page_token else None
        page = await self._store.list_sessions(
            caller.principal, dict(request.labels), page_size(request.page_size), before
        )
        return pb.ListSessionsResponse(
            sessions=[session.to_proto(each) for each in page.items],
            next_page_token=page_token("ListSessions", filters, page.next),
        )

    async def update_session(self, request: pb.UpdateSessionRequest, caller: Caller) -> pb.UpdateSessionResponse:
        """Serve UpdateSession."""
        change = session.change_from_proto(request)
        revision = request.revision if request.HasField("revision") else None
        changed = await self._runtime.update_session(caller.principal, request.session.session_id, change, revision)
        return pb.UpdateSessionResponse(session=session.to_proto(changed))

    async def delete_session(self, request: pb.DeleteSessionRequest, caller: Caller) -> pb.DeleteSessionResponse:
        """Serve DeleteSession."""
        revision = request.revision if request.HasField("revision") else None
        await self._runtime.delete_session(caller.principal, request.session_id, revision, force=request.force)
        return pb.DeleteSessionResponse()

    async def get_turn(self, request: pb.GetTurnRequest, caller: Caller) -> pb.GetTurnResponse:
        """Serve GetTurn."""
        request.view = request.view or turn_pb2.TURN_VIEW_FULL
        filters, view, limit = filters_of(request), TurnView(request.view), request.page_size or BLOCKS_MAX
        index: int | None = request.at.index if request.at.HasField("index") else None
        offset = 0
        if request.page_token:
            index, offset = decode_blocks_token(filters, request.page_token)
        if request.WhichOneof("target") == "inference_id":
            inference = await self._store.get_inference(caller.principal, request.inference_id)
            if inference.turn_index is None:
                raise TurnNotOpenedError(inference_id=request.inference_id)
            page = await read_turn_of(self._store, caller.principal, inference, view, offset, limit)
        else:
            page = await self._store.get_turn(caller.principal, request.at.session_id, index, view, offset, limit)
        return pb.GetTurnResponse(turn=turn.to_proto(page.turn), next_page_token=blocks_token(filters, page))

    async def list_turns(self, request: pb.ListTurnsRequest, caller: Caller) -> pb.ListTurnsResponse:
        """Serve ListTurns."""
        filters = filters_of(request)
        cursor = decode_page_token("ListTurns", filters, request.page_token) if request.page_token else None
        page = await self._store.list_turns(
            caller.principal,
            request.session_id,
            TurnView(request.view) if request.view else TurnView.BASIC,
            page_size(request.page_size),
            cursor,
            newest_first=request.newest_first,
        )
        return pb.ListTurnsResponse(
            turns=[turn.to_proto(each) for each in page.items],
            next_page_token=page_token("ListTurns", filters, page.next),
        )


def _guard(rpc: str, request: pb.CreateSessionRequest | pb.ForkSessionRequest) -> Idempotency | None:
    if not request.idempotency_key:
        return None
    return Idempotency(rpc, request.idempotency_key, fingerprint(request, ("idempotency_key",)))

"""What a client can ask about sessions and their turns."""

from collections.abc import AsyncGenerator, Mapping

from turnwire.v1.inference_pb2 import InferenceConfig
from turnwire.v1.session_pb2 import NewSession, Session
from turnwire.v1.session_service_pb2 import (
    CreateSessionRequest,
    DeleteSessionRequest,
    ForkSessionRequest,
    GetSessionRequest,
    GetTurnRequest,
    ListSessionsRequest,
    ListTurnsRequest,
    SessionUpdate,
    TurnAt,
    UpdateSessionRequest,
)
from turnwire.v1.turn_pb2 import Turn
from turnwire_client._pages import VIEWS, View, complete_turn
from turnwire_client._requests import UINT32_MAX, UINT64_MAX, Seconds, in_range, mint_key, to_duration
from turnwire_client._transport import Transport


class SessionCalls:
    """The part of Client that is about sessions and turns."""

    _transport: Transport

    async def create_session(
        self,
        session_id: str = "",
        *,
        display_name: str = "",
        labels: Mapping[str, str] | None = None,
        metadata: Mapping[str, str] | None = None,
        profile: str = "",
        config: InferenceConfig | None = None,
        ttl: Seconds | None = None,
        idempotency_key: str | None = None,
    ) -> Session:
        """Creates a session; the server mints the session_id when none is given.

        Values of `metadata` are JSON texts. `config` is laid over the profile's for every inference of the session.
        """
        new = NewSession(
            session_id=session_id,
            display_name=display_name,
            labels=labels or {},
            metadata=metadata or {},
            profile=profile,
            config=config,
            ttl=None if ttl is None else to_duration(ttl),
        )
        request = CreateSessionRequest(session=new, idempotency_key=idempotency_key or mint_key())
        response = await self._transport.call_repeatable(self._transport.sessions.CreateSession, request)
        return response.session

    async def fork_session(
        self,
        session_id: str,
        *,
        index: int | None = None,
        new_session_id: str = "",
        display_name: str = "",
        labels: Mapping[str, str] | None = None,
        metadata: Mapping[str, str] | None = None,
        profile: str = "",
        config: InferenceConfig | None = None,
        ttl: Seconds | None = None,
        idempotency_key: str | None = None,
    ) -> Session:
        """Creates a session that shares the turns of another one up to `index`; by default, all that are closed.

        What the new session does not say itself it does not have from its origin either, profile and `config` included.
        """
        new = NewSession(
            session_id=new_session_id,
            display_name=display_name,
            labels=labels or {},
            metadata=metadata or {},
            profile=profile,
            config=config,
            ttl=None if ttl is None else to_duration(ttl),
        )
        request = ForkSessionRequest(
            session_id=session_id,
            index=None if index is None else in_range("index", index, UINT32_MAX),
            session=new,
            idempotency_key=idempotency_key or mint_key(),
        )
        return (await self._transport.call_repeatable(self._transport.sessions.ForkSession, request)).session

    async def get_session(self, session_id: str) -> Session:
        """The session as it is now."""
        request = GetSessionRequest(session_id=session_id)
        return (await self._transport.call(self._transport.sessions.GetSession, request)).session

    async def list_sessions(self, *, labels: Mapping[str, str] | None = None) -> AsyncGenerator[Session, None]:
        """Every session that has all of these labels, the newest first, page by page."""
        request = ListSessionsRequest(labels=labels or {})
        while True:
            response = await self._transport.call(self._transport.sessions.ListSessions, request)
            for session in response.sessions:
                yield session
            request.page_token = response.next_page_token
            if not request.page_token:
                return

    async def update_session(
        self,
        session_id: str,
        *,
        display_name: str | None = None,
        labels: Mapping[str, str] | None = None,
        metadata: Mapping[str, str] | None = None,
        profile: str | None = None,
        config: InferenceConfig | None = None,
        revision: int | None = None,
    ) -> Session:
        """Changes what is not None; a map and `config` are replaced as a whole.

        `revision`, if given, has to be the present one.
        """
        changes = {
            "display_name": display_name,
            "labels": labels,
            "metadata": metadata,
            "profile": profile,
            "config": config,
        }
        update = SessionUpdate(
            session_id=session_id,
            display_name=display_name or "",
            labels=labels or {},
            metadata=metadata or {},
            profile=profile or "",
            config=config,
        )
        request = UpdateSessionRequest(session=update, revision=_revision(revision))
        request.update_mask.paths.extend(name for name, value in changes.items() if value is not None)
        return (await self._transport.call(self._transport.sessions.UpdateSession, request)).session

    async def delete_session(self, session_id: str, *, revision: int | None = None, force: bool = False) -> None:
        """Deletes a session with its turns and its events; with `force` also while an inference has not ended."""
        request = DeleteSessionRequest(session_id=session_id, revision=_revision(revision), force=force)
        await self._transport.call(self._transport.sessions.DeleteSession, request)

    async def get_turn(
        self, session_id: str = "", index: int | None = None, *, inference_id: str = "", view: View = "full"
    ) -> Turn:
        """A turn with all its blocks: of an inference, or of a session by index, the newest one when that is None."""
        request = GetTurnRequest(view=VIEWS[view])
        if inference_id:
            request.inference_id = inference_id
        else:
            request.at.CopyFrom(
                TurnAt(session_id=session_id, index=None if index is None else in_range("index", index, UINT32_MAX))
            )
        response = await self._transport.call(self._transport.sessions.GetTurn, request)
        request.page_token = response.next_page_token
        return await complete_turn(self._transport, request, response.turn)

    async def list_turns(
        self, session_id: str, *, view: View = "basic", newest_first: bool = False
    ) -> AsyncGenerator[Turn, None]:
        """The turns of a session, page by page. One that is too large for a response lacks blocks; get_turn has all."""
        request = ListTurnsRequest(session_id=session_id, view=VIEWS[view], newest_first=newest_first)
        while True:
            response = await self._transport.call(self._transport.sessions.ListTurns, request)
            for turn in response.turns:
                yield turn
            request.page_token = response.next_page_token
            if not request.page_token:
                return


def _revision(revision: int | None) -> int | None:
    return None if revision is None else in_range("revision", revision, UINT64_MAX)

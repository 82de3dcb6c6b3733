"""The client: one channel to one server, and what can be asked of it."""

import uuid
from collections.abc import AsyncGenerator, Iterable, Mapping
from datetime import timedelta
from typing import Self, TypeAlias

import grpc

from turnwire.v1.engine_pb2 import Engine, Profile
from turnwire.v1.engine_service_pb2 import GetProfileRequest, ListEnginesRequest, ListProfilesRequest
from turnwire.v1.inference_pb2 import Inference, InferenceConfig, InferenceState
from turnwire.v1.inference_service_pb2 import CancelRequest, GetInferenceRequest, ListInferencesRequest
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
from turnwire.v1.tool_pb2 import Tool
from turnwire.v1.turn_pb2 import Block, Turn
from turnwire_client._backoff import Clock, SystemClock
from turnwire_client._handle import VIEWS, InferenceHandle, View, complete_turn
from turnwire_client._requests import UINT32_MAX, UINT64_MAX, Conflict, in_range, start_request, to_duration
from turnwire_client._transport import Policy, Transport, channel_options
from turnwire_client._watch import EventStream, IfCompacted, Start, Until

DEFAULT_TARGET = "127.0.0.1:7450"

Seconds: TypeAlias = float | timedelta


class Client:
    """A connection to a turnwire server. Make it with `connect`; any number of tasks may share it.

    Every method that talks to the server raises a RequestError, by its reason, when the server refuses or cannot be
    reached. What creates something mints an idempotency key and is sent again, with that key, when no answer comes: it
    happens once. Reads are sent again by the channel. Updates and deletes are not sent again.

    A number that the contract has no room for, such as a negative index or an infinite timeout, is a ValueError, and
    nothing is sent.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    @classmethod
    def connect(
        cls,
        target: str = DEFAULT_TARGET,
        *,
        credentials: grpc.ChannelCredentials | None = None,
        policy: Policy | None = None,
        clock: Clock | None = None,
    ) -> Self:
        """A client for `host:port`, to be used as `async with Client.connect(...) as client` inside a running loop.

        Connects with the first request, not before. Without credentials the connection is not encrypted.
        """
        if credentials is None:
            channel = grpc.aio.insecure_channel(target, options=channel_options())
        else:
            channel = grpc.aio.secure_channel(target, credentials, options=channel_options())
        return cls(Transport(channel, policy or Policy(), clock or SystemClock()))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connection. Inferences go on. Idempotent."""
        await self._transport.channel.close()

    # --- sessions -----------------------------------------------------------------------------------

    async def create_session(
        self,
        session_id: str = "",
        *,
        display_name: str = "",
        labels: Mapping[str, str] | None = None,
        metadata: Mapping[str, str] | None = None,
        profile: str = "",
        ttl: Seconds | None = None,
        idempotency_key: str | None = None,
    ) -> Session:
        """Creates a session; the server mints the session_id when none is given.

        Values of `metadata` are JSON texts.
        """
        new = NewSession(
            session_id=session_id,
            display_name=display_name,
            labels=labels or {},
            metadata=metadata or {},
            profile=profile,
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
        ttl: Seconds | None = None,
        idempotency_key: str | None = None,
    ) -> Session:
        """Creates a session that shares the turns of another one up to `index`; by default, all that are closed.

        What the new session does not say itself it does not have from its origin either, its profile included.
        """
        new = NewSession(
            session_id=new_session_id,
            display_name=display_name,
            labels=labels or {},
            metadata=metadata or {},
            profile=profile,
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
        revision: int | None = None,
    ) -> Session:
        """Changes what is not None; a map is replaced as a whole. `revision`, if given, has to be the present one."""
        changes = {"display_name": display_name, "labels": labels, "metadata": metadata, "profile": profile}
        update = SessionUpdate(
            session_id=session_id,
            display_name=display_name or "",
            labels=labels or {},
            metadata=metadata or {},
            profile=profile or "",
        )
        request = UpdateSessionRequest(session=update, revision=_revision(revision))
        request.update_mask.paths.extend(name for name, value in changes.items() if value is not None)
        return (await self._transport.call(self._transport.sessions.UpdateSession, request)).session

    async def delete_session(self, session_id: str, *, revision: int | None = None, force: bool = False) -> None:
        """Deletes a session with its turns and its events; with `force` also while an inference has not ended."""
        request = DeleteSessionRequest(session_id=session_id, revision=_revision(revision), force=force)
        await self._transport.call(self._transport.sessions.DeleteSession, request)

    # --- inferences ---------------------------------------------------------------------------------

    async def start_inference(
        self,
        session: str | NewSession | None = None,
        input: str | Iterable[Block] = (),  # noqa: A002 - the contract's name
        *,
        profile: str = "",
        config: InferenceConfig | None = None,
        tools: Iterable[Tool] = (),
        output_schema: str = "",
        engine_options: str | Mapping[str, object] = "",
        conflict_policy: Conflict = "reject",
        parent: int | None = None,
        timeout: Seconds | None = None,
        attempts_max: int | None = None,
        metadata: Mapping[str, str] | None = None,
        data: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
    ) -> InferenceHandle:
        """Starts an inference and returns once it is durable; it goes on whether or not anybody listens.

        `session` is the session_id of one that exists, or a NewSession to create with it, None for one with all
        defaults. `input` is what the user says, or blocks; nothing means to go on from the parent. `engine_options` may
        be a mapping, which is sent as JSON; where requests go is the profile's to say. `timeout` bounds the inference,
        not this call. A key of your own makes it happen once even across restarts of your process. The server refuses
        an `output_schema` for now, with FeatureNotImplementedError.

        Raises SessionBusyError, SessionNotFoundError and the other errors of StartInference.
        """
        request = start_request(
            session,
            input,
            profile=profile,
            config=config,
            tools=tools,
            output_schema=output_schema,
            engine_options=engine_options,
            conflict_policy=conflict_policy,
            parent=parent,
            timeout=timeout,
            attempts_max=attempts_max,
            metadata=metadata,
            data=data,
            idempotency_key=idempotency_key or mint_key(),
        )
        response = await self._transport.call_repeatable(self._transport.inferences.StartInference, request)
        found = response.inference
        return InferenceHandle(
            self._transport, found.inference_id, found.session_id, inference=found, created=response.created
        )

    def inference(self, inference_id: str, session_id: str) -> InferenceHandle:
        """The handle of an inference that was started before, perhaps by another process. Asks the server nothing."""
        return InferenceHandle(self._transport, inference_id, session_id)

    async def get_inference(self, inference_id: str) -> Inference:
        """The inference as it is now."""
        request = GetInferenceRequest(inference_id=inference_id)
        return (await self._transport.call(self._transport.inferences.GetInference, request)).inference

    async def list_inferences(
        self, session_id: str, *, states: Iterable[InferenceState.ValueType] = ()
    ) -> AsyncGenerator[Inference, None]:
        """The inferences of a session in one of these states, or all, the newest first, page by page."""
        request = ListInferencesRequest(session_id=session_id, states=states)
        while True:
            response = await self._transport.call(self._transport.inferences.ListInferences, request)
            for inference in response.inferences:
                yield inference
            request.page_token = response.next_page_token
            if not request.page_token:
                return

    async def cancel_active(self, session_id: str, reason: str = "") -> Inference:
        """Requests that whatever runs in the session stops. Not sent again by itself: it could hit the next one."""
        request = CancelRequest(session_id=session_id, reason=reason)
        return (await self._transport.call(self._transport.inferences.Cancel, request)).inference

    def watch(
        self,
        session_id: str,
        *,
        inference_id: str = "",
        start: Start = "beginning",
        until: Until = "follow",
        log: str = "",
        if_compacted: IfCompacted = "raise",
        cancel_after_disconnect: Seconds | None = None,
    ) -> EventStream:
        """The events of a session, or of one of its inferences, each exactly once.

        `start` may be the sequence to begin after; then `log`, the token that came with it, should be given too. With
        "snapshot" it is what everything so far amounts to, then what follows; EventStream says how to tell them apart.
        `if_compacted="snapshot"` begins with a snapshot as well where retention has removed what is due.

        `until="inference_end"` needs an inference_id, and so does `cancel_after_disconnect`: if the stream breaks, also
        because this process ends or leaves the loop, and no stream of the inference is there after so many seconds, the
        server cancels it.

        Raises ValueError for a sequence, or a time, that cannot be one.
        """
        return EventStream(
            self._transport,
            session_id,
            inference_id,
            start,
            until,
            log,
            if_compacted=if_compacted,
            cancel_after_disconnect=cancel_after_disconnect,
        )

    # --- turns --------------------------------------------------------------------------------------

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

    # --- engines and profiles -----------------------------------------------------------------------

    async def list_engines(self) -> AsyncGenerator[Engine, None]:
        """The engines that the server has, by name, page by page."""
        request = ListEnginesRequest()
        while True:
            response = await self._transport.call(self._transport.engines.ListEngines, request)
            for engine in response.engines:
                yield engine
            request.page_token = response.next_page_token
            if not request.page_token:
                return

    async def list_profiles(self) -> AsyncGenerator[Profile, None]:
        """The profiles that the server offers, by name, page by page."""
        request = ListProfilesRequest()
        while True:
            response = await self._transport.call(self._transport.engines.ListProfiles, request)
            for profile in response.profiles:
                yield profile
            request.page_token = response.next_page_token
            if not request.page_token:
                return

    async def get_profile(self, name: str = "") -> Profile:
        """A profile: what is in effect, and what it was made of. Without a name, the default one.

        Raises ProfileNotFoundError.
        """
        request = GetProfileRequest(profile=name)
        return (await self._transport.call(self._transport.engines.GetProfile, request)).profile


def _revision(revision: int | None) -> int | None:
    return None if revision is None else in_range("revision", revision, UINT64_MAX)


def mint_key() -> str:
    """A new idempotency key."""
    return str(uuid.uuid4())

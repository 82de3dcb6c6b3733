"""The client: one channel to one server, and what can be asked of it."""

from collections.abc import AsyncGenerator, Iterable, Mapping
from typing import Self

import grpc

from turnwire.v1.event_pb2 import Event
from turnwire.v1.inference_pb2 import Inference, InferenceConfig, InferenceState
from turnwire.v1.inference_service_pb2 import (
    CancelRequest,
    GetInferenceRequest,
    ListEventsRequest,
    ListInferencesRequest,
)
from turnwire.v1.session_pb2 import NewSession
from turnwire.v1.tool_pb2 import Tool
from turnwire.v1.turn_pb2 import Block
from turnwire_client._backoff import Clock, SystemClock
from turnwire_client._continuity import is_known
from turnwire_client._debug import DebugCalls
from turnwire_client._engines import EngineCalls
from turnwire_client._handle import InferenceHandle
from turnwire_client._requests import UINT64_MAX, Conflict, Seconds, in_range, mint_key, start_request
from turnwire_client._sessions import SessionCalls
from turnwire_client._transport import Policy, Transport, channel_options
from turnwire_client._watch import EventStream, IfCompacted, Start, Until

DEFAULT_TARGET = "127.0.0.1:7450"


class Client(SessionCalls, EngineCalls, DebugCalls):
    """A connection to a turnwire server. Make it with `connect`; any number of tasks may share it.

    Every method that talks to the server raises a RequestError, by its reason, when the server refuses or cannot be
    reached. What creates something, and answers to tool calls, have an idempotency key that is minted here, and are
    sent again with it when no answer comes: they happen once. Reads are sent again by the channel. Updates, releases
    of pauses and deletes are not sent again.

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

    async def start_inference(
        self,
        session: str | NewSession | None = None,
        input: str | Iterable[Block] = (),  # noqa: A002 - the contract's name
        *,
        profile: str = "",
        config: InferenceConfig | None = None,
        tools: Iterable[Tool] = (),
        output_schema: str | Mapping[str, object] = "",
        engine_options: str | Mapping[str, object] = "",
        record_snapshots: bool = False,
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
        defaults. `input` is what the user says, or blocks; nothing means to go on from the parent. `tools` are executed
        by the client, see InferenceHandle.run_tools, or name tools of the profile that need approval. `output_schema`,
        the JSON Schema that the answer has to satisfy, and `engine_options` may be mappings, which are sent as JSON;
        where requests go is the profile's to say. `record_snapshots` is for list_turn_snapshots. `timeout` bounds the
        inference, not this call. A key of your own makes it happen once even across restarts of your process.

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
            record_snapshots=record_snapshots,
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

    async def list_events(
        self, session_id: str, *, inference_id: str = "", after_sequence: int = 0, log: str = ""
    ) -> AsyncGenerator[Event, None]:
        """The events up to now of a session, or of one of its inferences, page by page; `watch` has those to come.

        With a sequence that was stored, `log`, the token that came with it, should be given too. Raises
        LogReplacedError and the other errors of ListEvents; UnknownEventError, as EventStream does; ValueError for what
        is no sequence.
        """
        after = in_range("a sequence", after_sequence, UINT64_MAX)
        request = ListEventsRequest(session_id=session_id, inference_id=inference_id, after_sequence=after, log=log)
        while True:
            response = await self._transport.call(self._transport.inferences.ListEvents, request)
            for event in response.events:
                if is_known(event):
                    yield event
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

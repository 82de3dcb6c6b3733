"""Watching: an iterator of events that outlives the streams it reads from."""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal, Self, TypeAlias

import grpc

from turnwire.v1.event_pb2 import Event
from turnwire.v1.inference_service_pb2 import (
    FromBeginning,
    FromLive,
    FromSnapshot,
    SubscribeEventsRequest,
    SubscribeEventsResponse,
    SubscribeUntil,
    SubscriptionEndReason,
)
from turnwire_client._backoff import Patience
from turnwire_client._continuity import Continuity, is_known
from turnwire_client._errors import (
    CredentialsExpiredError,
    EventsCompactedError,
    ProtocolError,
    RequestError,
    Retry,
    SessionDeletedError,
    StreamLostError,
    UnknownEventError,
)
from turnwire_client._requests import UINT64_MAX, in_range, to_duration
from turnwire_client._status import from_rpc_error, is_transient
from turnwire_client._transport import Transport

# Where to begin: with everything that is retained, with what happens from now on, with a snapshot, or after a sequence.
Start: TypeAlias = Literal["beginning", "live", "snapshot"] | int

# What to do where retention has removed events that are due: raise EventsCompactedError, or begin with a snapshot.
IfCompacted: TypeAlias = Literal["raise", "snapshot"]

# When to end: never by itself, with the inference, or at the head at the time of the call.
Until: TypeAlias = Literal["follow", "inference_end", "caught_up"]

UNTIL: dict[Until, SubscribeUntil.ValueType] = {
    "follow": SubscribeUntil.SUBSCRIBE_UNTIL_FOLLOW,
    "inference_end": SubscribeUntil.SUBSCRIBE_UNTIL_INFERENCE_END,
    "caught_up": SubscribeUntil.SUBSCRIBE_UNTIL_CAUGHT_UP,
}


END_OF: dict[Until, SubscriptionEndReason.ValueType] = {
    "inference_end": SubscriptionEndReason.SUBSCRIPTION_END_REASON_INFERENCE_FINISHED,
    "caught_up": SubscriptionEndReason.SUBSCRIPTION_END_REASON_CAUGHT_UP,
}


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place in a log. It may be stored, and handed to `watch` or `events` of another process at any later time."""

    after_sequence: int
    log: str


class EventStream:
    """The events of a session or of one inference, each exactly once and in order, across cuts of the connection.

    Iterate over it with `async for`. When a stream is cut, when the server drains or restarts, or when nothing is heard
    for three heartbeats, it subscribes again after the last sequence that it has seen; the caller notices a pause at
    most. Every response is checked against the promises of event.proto. Memory is bounded by one response (4 MiB):
    while the caller does not ask, nothing is read.

    A stream with a snapshot hands out its events first, as few as show the same as all events would: deltas are joined,
    and left out where the final has the text (see SnapshotPart). `is_snapshot` tells them from those that follow. Each
    inference comes once and whole, so while a snapshot is read, memory is bounded by one inference and those that have
    not ended; a snapshot that is cut begins anew with those that did not come yet, and has no cursor inside.

    Leaving the loop early is fine; `aclose`, or `async with`, tells the server at once. `on_cut`, if it is set, is
    called each time the stream was cut and is about to be resumed; once, however many attempts that takes.
    `on_snapshot` is called when events were due that retention has removed, and a snapshot tells everything anew
    (`if_compacted`): what was made of the events before has to be dropped.

    Iterating raises:
      RequestError         the subscription was refused, such as SessionNotFoundError, LogReplacedError
      UnavailableError     a RequestError: the server did not answer for as long as `Policy.opening` allows
      SessionDeletedError  the session was deleted
      StreamLostError      a stream that had been open was cut, and not resumed for as long as `Policy.resume` allows
      ProtocolError        the server broke a promise
      UnknownEventError    an event is of a newer contract and must not be skipped
    """

    def __init__(
        self,
        transport: Transport,
        session_id: str,
        inference_id: str,
        start: Start,
        until: Until,
        log: str,
        *,
        if_compacted: IfCompacted = "raise",
        cancel_after_disconnect: float | timedelta | None = None,
        reached: bool = False,
    ) -> None:
        self._transport = transport
        self._until: Until = until
        self._live = start == "live"
        self._if_compacted: IfCompacted = if_compacted
        self._cancel_after = None if cancel_after_disconnect is None else to_duration(cancel_after_disconnect)
        after = in_range("a sequence", start, UINT64_MAX) if isinstance(start, int) else None
        self._seen = Continuity(session_id, inference_id, after, log)
        if start == "snapshot":
            self._seen.begin_snapshot()
        self.on_cut: Callable[[], object] | None = None
        self.on_snapshot: Callable[[], object] | None = None
        # Whether the server is known to be there: it has answered this stream, or the start of the inference.
        self._reached = reached
        policy = transport.policy
        self._patience = Patience(policy.resume if reached else policy.opening, transport.clock)
        self._cut = False
        self._call: grpc.aio.UnaryStreamCall[SubscribeEventsRequest, SubscribeEventsResponse] | None = None
        self._heard = False
        # At most the events of one response: nothing is read while there are some.
        self._ready: deque[Event] = deque()
        self._ready_of_snapshot = False
        self._is_snapshot = False
        self._end: int | None = None
        self._ended = False
        self._delivered: int | None = None

    @property
    def cursor(self) -> Cursor:
        """Where a stream has to begin to continue after the last event that was handed out.

        Inside a snapshot that is 0, the beginning: what was handed out of it would come again.
        """
        after = self._seen.after_sequence if self._delivered is None else self._delivered
        return Cursor(after or 0, self._seen.log)

    @property
    def is_snapshot(self) -> bool:
        """Whether the event that was handed out last is of a snapshot."""
        return self._is_snapshot

    @property
    def snapshot_through(self) -> int | None:
        """The sequence that the snapshot tells everything up to, once all of it has arrived; None before."""
        return self._seen.snapshot_through

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        while True:
            while not self._ready:
                self._delivered = None
                if self._ended:
                    raise StopAsyncIteration
                await self._fill()
            event = self._ready.popleft()
            try:
                known = is_known(event)
            except UnknownEventError:
                await self.aclose()
                self._delivered = 0 if self._ready_of_snapshot else event.sequence - 1
                raise
            self._is_snapshot = self._ready_of_snapshot
            self._delivered = self._cursor_after(event)
            if known:
                return event

    def _cursor_after(self, event: Event) -> int:
        if not self._ready_of_snapshot:
            return event.sequence
        return 0 if self._ready else self._seen.after_sequence or 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Ends the subscription. Idempotent; what is iterated afterwards is over."""
        self._ended = True
        self._ready.clear()
        self._hang_up()

    async def _fill(self) -> None:
        """Takes one response from the present stream or from a new one, or goes on after the end of one."""
        if self._end is not None:
            await self._conclude(self._end)
            return
        try:
            response = await self._read()
        except RequestError as failure:
            await self._recover(failure)
            return
        if response is None:
            await self._recover(None)
            return
        advanced = response.through_sequence != self._seen.after_sequence
        self._ready_of_snapshot = self._seen.snapshot is not None
        try:
            self._ready.extend(self._seen.take(response))
        except ProtocolError:
            await self.aclose()
            raise
        self._note_answer(advanced=advanced)
        if response.HasField("end"):
            self._hang_up()
            self._end = response.end.reason

    def _note_answer(self, *, advanced: bool) -> None:
        if not self._reached:
            self._reached = True
            self._patience = Patience(self._transport.policy.resume, self._transport.clock)
        if self._heard or advanced:
            self._patience.advanced()
        else:
            self._patience.answered()
        self._heard = True
        self._cut = False

    async def _read(self) -> SubscribeEventsResponse | None:
        """The next response; None when the stream was cut without a status.

        Raises RequestError.
        """
        if self._call is None:
            self._call = self._transport.inferences.SubscribeEvents(self._request())
            self._seen.reopen()
            self._heard = False
            if not self._reached:
                self._patience.asked()
        call = self._call
        silent = False

        def give_up() -> None:
            nonlocal silent
            silent = True
            call.cancel()

        policy = self._transport.policy
        seconds = policy.silence_seconds if self._reached else min(policy.rpc_timeout_seconds, policy.silence_seconds)
        timer = self._transport.clock.call_later(seconds, give_up)
        try:
            response = await call.read()
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error
        except asyncio.CancelledError:
            self._hang_up()
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            if silent:
                return None
            cursor = self.cursor
            await self.aclose()
            raise StreamLostError("the client was closed", cursor.after_sequence, cursor.log) from None
        finally:
            timer.cancel()
        return response if isinstance(response, SubscribeEventsResponse) else None

    def _request(self) -> SubscribeEventsRequest:
        seen = self._seen
        request = SubscribeEventsRequest(
            session_id=seen.session_id,
            inference_id=seen.inference_id,
            until=UNTIL[self._until],
            log=seen.log,
            cancel_after_disconnect=self._cancel_after,
        )
        if seen.after_sequence is not None:
            request.after_sequence = seen.after_sequence
        elif seen.snapshot is not None:
            request.snapshot.CopyFrom(FromSnapshot())
        elif self._live:
            request.live.CopyFrom(FromLive())
        else:
            request.from_beginning.CopyFrom(FromBeginning())
        return request

    async def _recover(self, failure: RequestError | None) -> None:
        """After a cut: waits, so that the next read subscribes again. Raises what cannot be recovered from."""
        self._hang_up()
        if self._seen.finished and self._until == "inference_end":
            self._ended = True  # nothing can follow: the promise Terminal
            return
        if isinstance(failure, EventsCompactedError) and self._if_compacted == "snapshot" and not self._seen.snapshot:
            self._seen.begin_snapshot()
            if self.on_snapshot is not None:
                self.on_snapshot()
            return
        if failure is not None and not self._passes(failure):
            await self.aclose()
            raise failure
        if self._reached and not self._cut:
            self._cut = True
            if self.on_cut is not None:
                self.on_cut()
        if not await self._patience.wait(failure):
            cursor = self.cursor
            await self.aclose()
            if not self._reached and failure is not None:
                raise failure
            message = f"no answer for {self._patience.give_up_seconds} s"
            raise StreamLostError(message, cursor.after_sequence, cursor.log) from failure

    def _passes(self, failure: RequestError) -> bool:
        """Whether to subscribe again. A watcher that had been let in is only held up by a limit that passes."""
        let_in = bool(self._seen.log)
        if isinstance(failure, EventsCompactedError) and self._seen.snapshot:
            return True  # retention has overtaken the snapshot while it was read: the next one begins later
        return is_transient(failure) or (let_in and failure.retry is Retry.AFTER_RETRY_INFO)

    async def _conclude(self, reason: int) -> None:
        """The server said that the stream is over, and every event of it was handed out."""
        self._end = None
        if reason == SubscriptionEndReason.SUBSCRIPTION_END_REASON_DRAINING:
            await self._recover(None)
            return
        await self.aclose()
        if reason == SubscriptionEndReason.SUBSCRIPTION_END_REASON_SESSION_DELETED:
            raise SessionDeletedError("the session was deleted")
        if reason == SubscriptionEndReason.SUBSCRIPTION_END_REASON_CREDENTIALS_EXPIRED:
            raise CredentialsExpiredError("the credentials have expired")
        if reason != END_OF.get(self._until):
            raise ProtocolError(f"a stream until {self._until} ended with reason {reason}")
        if self._until == "inference_end" and self._seen.started and not self._seen.finished:
            raise ProtocolError("the stream of the inference ended without its terminal event")

    def _hang_up(self) -> None:
        if self._call is not None:
            self._call.cancel()
            self._call = None

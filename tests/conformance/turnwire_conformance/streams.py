"""A stream of events that a case has open: read on demand, and every response held to the promises."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import grpc
from google.protobuf.message import Message

from turnwire.testing.v1.conformance_pb2 import Read
from turnwire.v1 import inference_service_pb2 as pb
from turnwire.v1.event_pb2 import Event
from turnwire_conformance.patterns import holds, show
from turnwire_conformance.promises import Watch
from turnwire_conformance.rpcs import Stream, refused, rpcs
from turnwire_conformance.stage import Stage, check_refusal

RPC = "InferenceService.SubscribeEvents"


@dataclass(eq=False)
class EventStream:
    """One stream. `folded` are the events of its snapshot, `last` is the response that was read last."""

    stream: Stream
    watch: Watch
    opened: pb.SubscriptionOpened = field(default_factory=pb.SubscriptionOpened)
    folded: list[Event] = field(default_factory=list[Event])
    last: pb.SubscribeEventsResponse = field(default_factory=pb.SubscribeEventsResponse)
    is_whole: bool = False
    count: int = 0
    _unread: list[Event] = field(default_factory=list[Event])
    _reading: "asyncio.Task[Any] | None" = None

    async def next_response(self) -> pb.SubscribeEventsResponse | None:
        """Read and check one response; None at the end of the stream. Errors: AssertionError, AioRpcError."""
        read = await self._read()
        if read is grpc.aio.EOF:
            return None
        response = cast("pb.SubscribeEventsResponse", rpcs()[RPC].response(read))
        if not self.count:
            self._begin(response)
        self.watch.take(response)
        if response.HasField("snapshot"):
            assert not self.is_whole, "a part of the snapshot after the last one"
            self.folded.extend(response.snapshot.events)
            self.is_whole = response.snapshot.last
        self.count += 1
        self.last = response
        self._unread.extend(response.events)
        return response

    async def _read(self) -> Any:
        """Read on. Who stops waiting leaves the reading to the next one: a read that is cancelled ends the stream."""
        self._reading = self._reading or asyncio.ensure_future(self.stream.read())
        await asyncio.wait({self._reading})
        done, self._reading = self._reading, None
        return done.result()

    async def leave(self) -> None:
        """Walk away."""
        self.stream.cancel()
        if self._reading:
            await asyncio.wait({self._reading})
            if not self._reading.cancelled():
                self._reading.exception()  # that it failed is no surprise

    def _begin(self, response: pb.SubscribeEventsResponse) -> None:
        self.watch.begin(response.after_sequence)
        self.opened.CopyFrom(response.opened)

    def take_unread(self, until: Callable[[Event], bool] | None = None) -> tuple[list[Event], Event | None]:
        """Take the events that no step has taken; with `until`, those up to the first one that it holds for, if any."""
        place = next((n for n, event in enumerate(self._unread) if until(event)), None) if until else None
        count = len(self._unread) if place is None else place + 1
        taken, self._unread = self._unread[:count], self._unread[count:]
        return taken, taken[-1] if place is not None else None


def open_stream(stage: Stage, name: str, request: Message, *, is_slow: bool) -> None:
    """Open a stream, under a name of the case."""
    asked = pb.SubscribeEventsRequest.FromString(request.SerializeToString())
    watch = Watch(asked.session_id, asked.inference_id)
    channel = stage.slow_channel() if is_slow else stage.channel
    stage.streams[name] = EventStream(rpcs()[RPC].open(channel, request.SerializeToString()), watch)


async def read_stream(stage: Stage, step: Read) -> None:
    """Take a step `read`. Errors: AssertionError."""
    stream = stage.streams[step.watch]
    began = time.monotonic()
    events: list[Event] = []
    found: Event | None = None
    limit = step.took_max.ToTimedelta().total_seconds() if step.HasField("took_max") else stage.limits.read
    try:
        async with asyncio.timeout(limit):
            found = await _READERS[step.WhichOneof("until") or ""](stage, stream, step, events)
    except TimeoutError:
        names = [event.WhichOneof("payload") for event in events]
        msg = f"{step.WhichOneof('until')} did not come in {limit:g} s; there came {names}, and {show(stream.last)}"
        raise AssertionError(msg) from None
    except grpc.aio.AioRpcError as error:
        msg = f"the stream failed: {refused(error)}"
        raise AssertionError(msg) from None
    took = time.monotonic() - began
    least = step.took_min.ToTimedelta().total_seconds()
    assert took >= least, f"it took {took:.2f} s, and should take at least {least:g} s"
    _look(stage, stream, step, events, found)


def _look(stage: Stage, stream: EventStream, step: Read, events: list[Event], found: Event | None) -> None:
    stage.check(events, step, "events")
    stage.check(stream.folded, step, "folded")
    stage.check(stream.last, step, "response")
    root = {"events": events, "opened": stream.opened, "folded": stream.folded, "response": stream.last}
    stage.save({**root, "event": found} if found else root, step.save)


async def _read_event(stage: Stage, stream: EventStream, step: Read, events: list[Event]) -> Event:
    pattern = stage.value(step.event)
    while True:
        taken, found = stream.take_unread(lambda event: holds(event, pattern, stage.variables))
        events.extend(taken)
        if found:
            return found
        assert await stream.next_response(), f"the stream ended with {show(stream.last)} before {pattern}"


async def _read_end(stage: Stage, stream: EventStream, step: Read, events: list[Event]) -> None:
    while await stream.next_response():
        pass
    events.extend(stream.take_unread()[0])
    assert stream.watch.end, f"the stream ended without `end`, with {show(stream.last)}"
    found = _end_name(stream.watch.end)
    assert found == step.end, f"the stream ended with {found}, and should with {step.end}"
    if found == "SESSION_DELETED":
        stage.sessions.discard(stream.watch.session_id)


def _end_name(reason: int) -> str:
    known = pb.SubscriptionEndReason.DESCRIPTOR.values_by_number.get(reason)
    return known.name.removeprefix("SUBSCRIPTION_END_REASON_") if known else str(reason)


async def _read_refusal(stage: Stage, stream: EventStream, step: Read, events: list[Event]) -> None:
    try:
        while await stream.next_response():
            pass
    except grpc.aio.AioRpcError as error:
        events.extend(stream.take_unread()[0])
        check_refusal(stage, refused(error), step.refused)
        return
    msg = f"the stream ended with {show(stream.last)}, and should be refused with {step.refused.reason}"
    raise AssertionError(msg)


async def _read_heartbeat(_: Stage, stream: EventStream, __: Read, events: list[Event]) -> None:
    while True:
        response = await stream.next_response()
        assert response, f"the stream ended with {show(stream.last)} before a heartbeat"
        events.extend(stream.take_unread()[0])
        if stream.count > 1 and not response.events and not response.HasField("snapshot"):
            return


async def _read_opened(_: Stage, stream: EventStream, __: Read, events: list[Event]) -> None:
    if not stream.count:
        assert await stream.next_response(), "the stream ended without a response"


async def _read_snapshot(_: Stage, stream: EventStream, __: Read, ___: list[Event]) -> None:
    while not stream.is_whole:
        assert await stream.next_response(), f"the stream ended with {show(stream.last)} before the snapshot was whole"


async def _read_silence(_: Stage, stream: EventStream, step: Read, events: list[Event]) -> None:
    try:
        async with asyncio.timeout(step.silence.ToTimedelta().total_seconds()):
            while not events:
                events.extend(stream.take_unread()[0])
                if not events:
                    assert await stream.next_response(), f"the stream ended with {show(stream.last)}"
    except TimeoutError:
        return
    msg = f"an event came: {show(events[0])}"
    raise AssertionError(msg)


_READERS: Any = {
    "event": _read_event,
    "end": _read_end,
    "refused": _read_refusal,
    "heartbeat": _read_heartbeat,
    "opened": _read_opened,
    "snapshot": _read_snapshot,
    "silence": _read_silence,
}

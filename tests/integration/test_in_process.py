"""What only shows from inside a running server: that nothing is left behind, and that it is right without any hint."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import grpc
import pytest

from support.rpc import Stubs, connect, refusal, script
from turnwire.v1 import inference_pb2
from turnwire.v1 import inference_service_pb2 as pb
from turnwire_server.bootstrap import Server, running_server
from turnwire_server.config.settings import Settings
from turnwire_server.domain.clock import Clock
from turnwire_server.domain.errors import EventsCompactedError, StoreUnavailableError
from turnwire_server.domain.ids import mint_id
from turnwire_server.domain.session import NewSession
from turnwire_server.engines.base import Emit, EngineCall, EngineResult
from turnwire_server.events.bus import Hint, InProcessBus
from turnwire_server.events.fanout import Fanout
from turnwire_server.events.folded_log import FrameCodec
from turnwire_server.events.subscription import StartKind, Subscription, Until, subscribe
from turnwire_server.middleware.base import Proceed, Scope
from turnwire_server.runtime.clock import SystemClock
from turnwire_server.stores.base import Base, OnCommit, SessionStore
from turnwire_server.stores.memory import MemorySessionStore
from turnwire_server.stores.page import LogPage
from turnwire_server.tools.base import ServerTool
from turnwire_server.wire.event import decode_frames, encode_frame

CODEC = FrameCodec(decode_frames, encode_frame)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    settings = Settings(listen="127.0.0.1:0", store="memory", drain_grace_seconds=0, watchers_max=3)
    async with running_server(settings) as running:
        yield running


async def _until(is_so: Callable[[], bool]) -> None:
    for _ in range(100_000):  # turns of the loop, which the server runs in as well
        if is_so():
            return
        await asyncio.sleep(0)
    raise AssertionError("it did not come about")


async def _watch(
    stubs: Stubs, session_id: str
) -> grpc.aio.UnaryStreamCall[pb.SubscribeEventsRequest, pb.SubscribeEventsResponse]:
    request = pb.SubscribeEventsRequest(session_id=session_id, from_beginning=pb.FromBeginning())
    call = stubs.inference.SubscribeEvents(request)
    assert await call.read()
    return call


class Meeting:
    """A middleware that is closed once another one is being closed as well."""

    name = "meeting"
    tools: Sequence[ServerTool] = ()
    both = asyncio.Barrier(2)

    async def call(self, call: EngineCall, emit: Emit, scope: Scope, proceed: Proceed) -> EngineResult:
        """See Middleware."""
        return await proceed(call, emit)

    async def aclose(self) -> None:
        """See Middleware."""
        await self.both.wait()


async def test_profiles_are_closed_side_by_side(tmp_path: Path) -> None:
    profile = {"engine": "scripted", "middleware": [f"{__name__}:Meeting"]}
    (tmp_path / "profiles.yaml").write_text(json.dumps({"default": "a", "profiles": {"a": profile, "b": profile}}))
    profiles = (str(tmp_path / "profiles.yaml"),)
    settings = Settings(listen="127.0.0.1:0", store="memory", drain_grace_seconds=0, profiles=profiles)
    async with asyncio.timeout(30):
        async with running_server(settings):
            pass


async def test_a_watcher_that_leaves_leaves_nothing(server: Server) -> None:
    async with connect(server.address) as stubs:
        session_id = await stubs.create_session()
        calls = [await _watch(stubs, session_id) for _ in range(3)]
        assert server.runtime.watcher_count == 3
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stubs.inference.SubscribeEvents(
                pb.SubscribeEventsRequest(session_id=session_id, live=pb.FromLive())
            ).read()
        assert refusal(refused.value) == ("RESOURCE_EXHAUSTED", "TOO_MANY_WATCHERS", {"watchers_max": "3"})
        for call in calls:
            call.cancel()
        await _until(lambda: server.runtime.watcher_count == 0)
        started = await stubs.start(session_id, script=script({"hang": {}}))
        wait = stubs.inference.Wait(pb.WaitRequest(inference_id=started.inference_id))
        await _until(lambda: server.runtime.watcher_count == 1)
        wait.cancel()
        await _until(lambda: server.runtime.watcher_count == 0)


class LosingBus(InProcessBus):
    """Loses every hint."""

    def publish(self, hint: Hint) -> None:
        """Lose it."""


async def test_everything_works_with_every_hint_lost() -> None:
    settings = Settings(listen="127.0.0.1:0", store="memory", drain_grace_seconds=0)
    async with running_server(settings, LosingBus()) as server, connect(server.address) as stubs:
        session_id = await stubs.create_session()
        ended = await stubs.finish((await stubs.start(session_id)).inference_id)
        assert ended.inference.state == inference_pb2.INFERENCE_STATE_SUCCEEDED
        hanging = await stubs.start(session_id, script=script({"hang": {}}))
        await stubs.inference.Cancel(pb.CancelRequest(inference_id=hanging.inference_id))
        cancelled = (await stubs.finish(hanging.inference_id)).inference
        assert cancelled.state == inference_pb2.INFERENCE_STATE_CANCELLED
        assert cancelled.end_time.ToNanoseconds() - cancelled.cancel_requested_time.ToNanoseconds() < 2e9


class SilentStore(MemorySessionStore):
    """Does not answer reads of the log while it is silent."""

    is_silent = False

    async def read_log(
        self, principal: str, session_id: str, after: int, limit_bytes: int, inference_id: str = ""
    ) -> LogPage:
        if self.is_silent:
            raise StoreUnavailableError
        return await super().read_log(principal, session_id, after, limit_bytes, inference_id)


async def test_an_idle_stream_outlives_a_store_that_does_not_answer() -> None:
    fanout, clock = Fanout(), SystemClock()
    store = SilentStore(on_commit=fanout.publish, now=clock.now, mint=mint_id)
    await store.create_session("local", NewSession("s"), "log", None)
    request = Subscription("local", "s", StartKind.FROM_BEGINNING)
    stream = subscribe(store, fanout, request, clock, CODEC, heartbeat_seconds=0.05)
    assert (await anext(stream)).opened
    store.is_silent = True
    for _ in range(3):
        beat = await anext(stream)
        assert (beat.frames, beat.end) == ((), None)
    await stream.aclose()


async def test_a_cut_between_two_reads_of_a_watcher_is_told() -> None:
    fanout, clock = Fanout(), SystemClock()
    store = MemorySessionStore(on_commit=fanout.publish, now=clock.now, mint=mint_id)
    settings = Settings(listen="127.0.0.1:0", store="memory", drain_grace_seconds=0)

    async def open_store(_on_commit: OnCommit, _clock: Clock) -> SessionStore:
        return store

    async with running_server(settings, open_store=open_store) as server, connect(server.address) as stubs:
        session_id = await stubs.create_session()
        await stubs.finish((await stubs.start(session_id)).inference_id)
        own = Fanout()  # which nobody tells of anything
        live = Subscription("local", session_id, StartKind.LIVE)
        stream = subscribe(store, own, live, clock, CODEC, heartbeat_seconds=60)
        assert (await anext(stream)).opened
        await stubs.finish((await stubs.start(session_id)).inference_id)
        head = (await store.get_session("local", session_id)).head_sequence
        await store.compact("local", session_id, Base(head - 1, b"fold"))
        own.refresh("local", session_id)
        with pytest.raises(EventsCompactedError):
            await anext(stream)
        first = (await store.list_inferences("local", session_id, (), 9, None)).items[-1]
        watched = Subscription(
            "local", session_id, StartKind.FROM_BEGINNING, inference_id=first.inference_id, until=Until.INFERENCE_END
        )
        with pytest.raises(EventsCompactedError):  # its terminal event is not there any more
            await anext(subscribe(store, own, watched, clock, CODEC, heartbeat_seconds=60))

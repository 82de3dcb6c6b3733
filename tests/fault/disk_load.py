"""Clients and watchers of a server whose disk something happens to, and what they saw, to be held against its store."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from types import TracebackType
from typing import TypeVar

import grpc
from google.protobuf.message import Message

from fault.plays import Part, Play, draw_play
from support.rpc import TERMINAL, Stubs, refusal, start_request
from turnwire.v1 import event_pb2, inference_pb2, session_service_pb2, turn_pb2
from turnwire.v1 import inference_service_pb2 as pb
from turnwire_conformance.promises import Watch, check_agreement, check_log

CLIENTS = 5

# How many inferences a client starts in a session before it goes on to the next.
SESSION_STARTS = 3

# What ends an inference that hangs and is not cancelled.
HANG_SECONDS = 2.0

# How many of those that hang are cancelled.
CANCEL_SHARE = 0.7

# How long a client waits before it sends again what was refused.
RETRY_SECONDS = 0.1

# How long it may take until clients have seen what is waited for.
SEE_SECONDS = 30.0

# How long it may take until everything has ended that was under way.
END_SECONDS = 30.0

Log = Sequence[event_pb2.Event]
Reply = TypeVar("Reply", bound=Message)


@dataclass
class SessionSeen:
    """What clients were told of one session: starts and cancels that were acknowledged, and ends, by inference_id."""

    watch: Watch
    starts: dict[str, pb.StartInferenceRequest] = field(default_factory=dict[str, pb.StartInferenceRequest])
    cancels: set[str] = field(default_factory=set[str])
    ends: dict[str, pb.WaitResponse] = field(default_factory=dict[str, pb.WaitResponse])

    def copy(self) -> "SessionSeen":
        """Return what was seen up to now."""
        watch = Watch(self.watch.session_id, events=list(self.watch.events), position=self.watch.position)
        return SessionSeen(watch, dict(self.starts), set(self.cancels), dict(self.ends))


class Load:
    """Clients at work, from `async with` on; what they are in the middle of at the end of it is left as it is.

    What the store cannot take is sent again under the same key. Nothing else may be refused, and no stream may end:
    whatever does not hold is raised at the end. `counts` tells how often what happened: sessions, starts, ends, and
    requests that were refused, or unanswered after `rpc_seconds`.
    """

    def __init__(self, stubs: Stubs, *, seed: int = 0, rpc_seconds: float = 10.0) -> None:
        self.counts = Counter[str]()
        self._rpc_seconds = rpc_seconds
        self._stubs = stubs
        self._seed = seed
        self._sessions: list[SessionSeen] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._changed = asyncio.Event()

    async def __aenter__(self) -> "Load":
        for number in range(CLIENTS):
            self._spawn(self._client(number))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        ends = await asyncio.gather(*self._tasks, return_exceptions=True)
        failures = [end for end in ends if isinstance(end, Exception)]
        if failures and (error is None or isinstance(error, Exception)):
            raise ExceptionGroup("what clients and watchers found", failures) from error

    def seen(self) -> list[SessionSeen]:
        """Return what was seen up to now."""
        return [each.copy() for each in self._sessions]

    async def wait_for(self, name: str, count: int) -> None:
        """Wait until something has happened so often, by `counts`, from now on; return at once if something failed."""
        due = self.counts[name] + count
        async with asyncio.timeout(SEE_SECONDS):
            while self.counts[name] < due and not any(task.done() for task in self._tasks):
                self._changed.clear()
                await self._changed.wait()

    def _count(self, name: str) -> None:
        self.counts[name] += 1
        self._changed.set()

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        task.add_done_callback(lambda _: self._changed.set())
        self._tasks.append(task)

    async def _client(self, number: int) -> None:
        """Start inferences, some in each session, one session after the other."""
        random = Random(f"{self._seed} {number}")
        while True:
            name = f"client-{self._seed}-{number}-{self.counts['sessions']}"
            creation = session_service_pb2.CreateSessionRequest(idempotency_key=name)
            session_id = (await self._ask(self._stubs.session.CreateSession, creation)).session.session_id
            self._count("sessions")
            seen = SessionSeen(Watch(session_id))
            self._sessions.append(seen)
            self._spawn(self._follow(seen.watch))
            for turn in range(SESSION_STARTS):
                await self._play(seen, draw_play(random, may_hang=True), f"{name}-{turn}", random)

    async def _play(self, seen: SessionSeen, play: Play, key: str, random: Random) -> None:
        request = start_request(seen.watch.session_id, key, script=play.script, idempotency_key=key)
        seconds = HANG_SECONDS if play.is_endless else play.timeout_seconds
        if seconds:
            request.timeout.FromMilliseconds(int(seconds * 1000))
        started = (await self._ask(self._stubs.inference.StartInference, request)).inference
        seen.starts[started.inference_id] = request
        self._count("starts")
        if play.is_endless and random.random() < CANCEL_SHARE:
            await asyncio.sleep(random.random() * HANG_SECONDS / 2)
            cancel = pb.CancelRequest(inference_id=started.inference_id)
            reply = (await self._ask(self._stubs.inference.Cancel, cancel)).inference
            if reply.HasField("cancel_requested_time"):  # else it had ended before
                seen.cancels.add(started.inference_id)
        waiting = wait_request(started.inference_id)
        ended = await self._ask(self._stubs.inference.Wait, waiting)
        while ended.inference.state not in TERMINAL:
            ended = await self._ask(self._stubs.inference.Wait, waiting)
        check_play(play, ended)
        seen.ends[started.inference_id] = ended
        self._count("ends")

    async def _ask(self, rpc: Callable[..., Awaitable[Reply]], request: Message) -> Reply:
        while True:
            try:
                return await rpc(request, timeout=self._rpc_seconds)
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                    self._count("unanswered")
                elif refusal(error) == ("UNAVAILABLE", "STORE_UNAVAILABLE", {}):
                    self._count("refused")
                else:
                    raise
            await asyncio.sleep(RETRY_SECONDS)

    async def _follow(self, watch: Watch) -> None:
        """Watch a session, all the time."""
        watch.begin(0)
        request = pb.SubscribeEventsRequest(session_id=watch.session_id, from_beginning=pb.FromBeginning())
        async for response in self._stubs.inference.SubscribeEvents(request):
            watch.take(response)
        msg = f"the stream of {watch.session_id} ended with {watch.end}"
        raise AssertionError(msg)


def wait_request(inference_id: str) -> pb.WaitRequest:
    """Return a request that waits for the end of an inference, and asks for its whole turn."""
    return pb.WaitRequest(
        inference_id=inference_id, until=inference_pb2.WAIT_UNTIL_END, turn_view=turn_pb2.TURN_VIEW_FULL
    )


def check_play(play: Play, reply: pb.WaitResponse) -> None:
    """Check that an inference became what it was to become, whatever the disk did. Raises AssertionError."""
    ended = reply.inference
    if play.is_endless:
        return
    assert (ended.state, ended.error.reason) == (play.state, play.reason), f"{play.kind} became {ended}"
    if play.state == inference_pb2.INFERENCE_STATE_SUCCEEDED:
        assert ended.finish_class == play.finish_class, f"{play.kind} became {ended}"
        said = [_part(block) for block in reply.turn.blocks[reply.turn.given_block_count :]]
        assert said == list(play.parts), f"{play.kind} {ended.inference_id} said {said}, not {play.parts}"


def _part(block: turn_pb2.Block) -> Part:
    kind = block.WhichOneof("kind") or ""
    return Part(kind, block.tool_call.args if kind == "tool_call" else getattr(block, kind).text)


async def check_nothing_lost(stubs: Stubs, sessions: Iterable[SessionSeen]) -> None:
    """Check that all that was seen of some sessions is there, that all that was accepted ends, and that they go on.

    Raises AssertionError.
    """
    await asyncio.gather(*(_check_session(stubs, seen) for seen in sessions))


async def _check_session(stubs: Stubs, seen: SessionSeen) -> None:
    for inference_id, request in seen.starts.items():
        repeated = await stubs.inference.StartInference(request)
        assert not repeated.created, f"Durable: the acknowledged start of {inference_id} is not there"
        assert repeated.inference.inference_id == inference_id, "Durable: the key means another inference"
        async with asyncio.timeout(END_SECONDS):
            ended = await stubs.finish(inference_id)
        due = seen.ends.get(inference_id, ended)
        assert ended == due, f"Durable: the end of {inference_id} was {due}, is {ended}"
        is_cancelled = ended.inference.HasField("cancel_requested_time")
        assert is_cancelled or inference_id not in seen.cancels, f"Durable: the cancel of {inference_id} is gone"
    # A start that nobody was told of may have happened as well; the probe comes after it.
    policy = inference_pb2.CONFLICT_POLICY_ENQUEUE
    probe = await stubs.start(seen.watch.session_id, "are you there?", conflict_policy=policy)
    assert (await stubs.finish(probe.inference_id)).inference.state == inference_pb2.INFERENCE_STATE_SUCCEEDED
    log = await read_log(stubs, seen.watch.session_id)
    assert seen.starts.keys() <= check_log(log).keys()
    check_agreement(log, [seen.watch])


async def check_beginning(stubs: Stubs, logs: Mapping[str, Log], until_seconds: float) -> None:
    """Check that what is there is how the logs of some sessions began, with the same bytes, and that all of it ends.

    What was told after `until_seconds`, of the wall clock, is what recovery made of it. Raises AssertionError.
    """
    await asyncio.gather(*(_check_log_begins(stubs, *each, until_seconds) for each in logs.items()))


async def _check_log_begins(stubs: Stubs, session_id: str, log: Log, until_seconds: float) -> None:
    if not await _exists(stubs, session_id):
        return
    for inference_id in {event.inference_id for event in await read_log(stubs, session_id)}:
        async with asyncio.timeout(END_SECONDS):
            await stubs.finish(inference_id)
    told = await read_log(stubs, session_id)
    check_log(told)
    kept = [event for event in told if event.create_time.ToMicroseconds() < until_seconds * 1_000_000]
    assert len(kept) <= len(log), f"Unique: {session_id} has more than it ever had"
    for mine, its in zip(kept, log, strict=False):
        assert mine == its, f"Gapless: {mine} is there, and was {its}"


async def _exists(stubs: Stubs, session_id: str) -> bool:
    try:
        await stubs.session.GetSession(session_service_pb2.GetSessionRequest(session_id=session_id))
    except grpc.aio.AioRpcError as error:
        if refusal(error)[1] == "SESSION_NOT_FOUND":
            return False
        raise
    return True


async def read_log(stubs: Stubs, session_id: str) -> list[event_pb2.Event]:
    """Return the whole log of a session, up to its head."""
    watch = Watch(session_id)
    watch.begin(0)
    request = pb.SubscribeEventsRequest(
        session_id=session_id, from_beginning=pb.FromBeginning(), until=pb.SUBSCRIBE_UNTIL_CAUGHT_UP
    )
    async for response in stubs.inference.SubscribeEvents(request):
        watch.take(response)
    return watch.events

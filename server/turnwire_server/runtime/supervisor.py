"""Who runs what: claims inferences, keeps their attempts, recovers what was lost, stops them, and drains.

Hints from the bus make it fast; the periodic look at the store makes it right when every hint is lost.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextvars import copy_context
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import TypeVar

from turnwire_server.domain.errors import StoreUnavailableError
from turnwire_server.domain.inference import Inference
from turnwire_server.events.bus import Bus, Hint, HintKind
from turnwire_server.events.folded_log import FrameCodec
from turnwire_server.events.patience import (
    CALL_SECONDS_MAX,
    LAST_SECONDS,
    PATIENCE_SECONDS,
    RESOLVE_SECONDS,
    RETRY_SECONDS,
    bounded,
)
from turnwire_server.runtime.assembly import Assembly
from turnwire_server.runtime.fitness import Fitness, OnFitness
from turnwire_server.runtime.guard import Guard
from turnwire_server.runtime.inference_loop import Attempt
from turnwire_server.runtime.leasing import Leasing
from turnwire_server.runtime.observer import Observer
from turnwire_server.runtime.ports import Ports
from turnwire_server.runtime.recovery import recover, refuse
from turnwire_server.runtime.step_changes import Moment
from turnwire_server.runtime.sweeper import Sweeper
from turnwire_server.stores.lease import Claim, DeclaredDead, Heartbeat
from turnwire_server.stores.start import Seat, Started
from turnwire_server.telemetry.logs import logger

# How often the store is looked at without any hint. Also the longest that a lost cancel hint delays a cancel.
RECONCILE_SECONDS = 0.5

# The most cancels that are remembered for what may be given to us by a call under way. One that is forgotten is found
# with the next look at the store.
EARLY_CANCELS_MAX = 1024

# How long a beat may take: several have to fit into the silence for which others wait.
BEAT_SECONDS_MAX = 1.5

# How long an attempt that was told to stop may take, the store's absence included. Then it is cancelled from outside.
STUCK_SECONDS = PATIENCE_SECONDS + 15.0

T = TypeVar("T")

log = logger()


class Supervisor:
    """Runs the inferences of one process, at most `running_max` at a time; the others stay QUEUED.

    It is the owner of what it runs. One that was declared dead begins again under another id.
    """

    def __init__(  # one argument per collaborator
        self,
        ports: Ports,
        bus: Bus,
        assemblies: Mapping[str, Assembly],
        codec: FrameCodec,
        running_max: int,
        on_fitness: OnFitness | None = None,
        retention: timedelta | None = None,
    ) -> None:
        self._leasing = Leasing(ports.mint)
        self._ports = ports
        self._bus = bus
        self._assemblies = assemblies
        self._decode = codec.decode
        self._running_max = running_max
        self._fitness = Fitness(ports.clock, on_fitness)
        self._attempts: dict[str, Attempt] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}  # everything that is done about an inference, attempts included
        self._running: asyncio.TaskGroup | None = None  # of all of them, while there may be more
        self._context = copy_context()
        self._recovering: set[str] = set()  # they take no engine, and so no place
        self._suspects: set[str] = set()
        self._observer = Observer()
        self._guard = Guard(ports.clock)
        self._sweeper = Sweeper(ports, bus, self._guard, self._fitness.may_sweep, codec, retention)
        self._early_cancels: set[str] = set()  # of what was just claimed, and has no attempt yet
        self._wake = asyncio.Event()
        self._finished = asyncio.Event()
        self._is_draining = False
        self._is_hurrying = False

    @property
    def owner(self) -> str:
        """The id that the store knows this process by now."""
        return self._leasing.owner

    @property
    def running_count(self) -> int:
        """How many inferences this process runs now."""
        return len(self._tasks)

    async def run(self) -> None:
        """Claim and run inferences until drain() is over."""
        unsubscribe = self._bus.subscribe(self._receive)
        # If it fails, the first claim finds an owner that nobody knows, and begins again.
        await self._guarded("registering", lambda: self._ports.store.register(self._leasing.owner))
        try:
            async with asyncio.TaskGroup() as group:
                rounds = [
                    group.create_task(self._repeat("reconciling", self._beat)),
                    group.create_task(self._sweeper.run(RECONCILE_SECONDS)),
                    group.create_task(self._repeat("watching", self._watch)),
                ]
                async with asyncio.TaskGroup() as tasks:
                    self._running = tasks
                    await self._claim_forever()
                for task in rounds:
                    task.cancel()
        finally:
            self._running = None
            unsubscribe()
            self._finished.set()

    async def start(self, send: Callable[[Seat | None], Awaitable[Started]]) -> Started:
        """Have a start sent to the store with a seat, if there is one, and run what has taken it.

        Errors: what `send` raises. What became of the seat then, the next claim tells.
        """
        seat = None
        if self._running and not self._is_draining:
            seat = self._leasing.take_seat(self._room(), is_claim_due=self._wake.is_set())
        if seat is None:
            return await send(None)
        moment = self._ports.step_changes.now()
        try:
            started = await self._leasing.start(seat, send)
        except BaseException:
            self._miss_seat()
            raise
        claim = started.claim
        if claim is None:
            self._miss_seat()
        elif not self._launch(claim, moment):  # everything has ended meanwhile
            send_back = partial(self._ports.store.hand_back, claim.lease, claim.position, is_loss=False)
            back = await self._guarded("handing back", send_back, claim.inference)
            return replace(started, inference=back or claim.inference, claim=None)
        return started

    def _miss_seat(self) -> None:
        """Claim if nobody knows what became of a seat, or if it was the last one: somebody may wait for its room."""
        if self._leasing.has_unresolved or self._room() <= 1:
            self._wake.set()

    def _room(self) -> int:
        """Return how many more inferences may run, those of starts under way counted as running."""
        return self._running_max - (len(self._tasks) - len(self._recovering)) - self._leasing.seat_count

    async def drain(self, grace_seconds: float) -> None:
        """Claim nothing more; let attempts end by themselves for a while, then hand their inferences back."""
        self._is_draining = True
        self._wake.set()
        if not await self._ports.clock.wait_for(self._finished.wait(), grace_seconds):
            self.hand_back()
            await self._finished.wait()

    def hand_back(self) -> None:
        """Hand every inference back, now: another process goes on, or this one after its restart."""
        self._is_draining = self._is_hurrying = True
        for attempt in tuple(self._attempts.values()):
            attempt.hand_back()
        self._wake.set()

    def _receive(self, hint: Hint) -> None:
        if hint.kind is HintKind.CANCEL:
            if attempt := self._attempts.get(hint.inference_id):
                attempt.cancel()
            elif len(self._early_cancels) < EARLY_CANCELS_MAX and (
                self._leasing.is_waiting or hint.inference_id in self._tasks
            ):
                self._early_cancels.add(hint.inference_id)
        if hint.kind is HintKind.QUEUED:
            self._wake.set()
        if hint.kind is HintKind.STEP_MODE:
            self.hear_step_mode()

    def hear_step_mode(self) -> None:
        """Have every attempt look at the step mode of its session before its next step."""
        self._ports.step_changes.hear()

    async def _claim_forever(self) -> None:
        while not self._is_draining:
            self._wake.clear()
            if not await self._claim():
                await self._ports.clock.wait_for(self._wake.wait(), RECONCILE_SECONDS)
        give_up = self._ports.clock.monotonic() + RESOLVE_SECONDS
        # What is ours has to be handed back.
        while self._leasing.is_waiting and self._ports.clock.monotonic() < give_up:
            await self._claim()
            await self._ports.clock.sleep(RETRY_SECONDS)

    async def _claim(self) -> bool:
        """Claim what there is room for, and attend to it; return whether there may be more."""
        leasing = self._leasing
        asked = leasing.ask_again() if self._is_draining else leasing.ask(self._room())
        if asked is None:
            return False
        claims = await self._guarded(
            "claiming",
            lambda: self._ports.store.claim(leasing.owner, asked.tokens, only_lost=asked.only_lost),
            seconds=LAST_SECONDS if self._is_draining else CALL_SECONDS_MAX,
        )
        if claims is None:
            return False
        has_more = leasing.answered(len(claims))
        for claim in claims:
            self._launch(claim, None)
        if not leasing.is_waiting:
            self._early_cancels &= self._tasks.keys()  # the others were not for us
        return has_more

    async def _guarded(
        self,
        what: str,
        work: Callable[[], Awaitable[T]],
        about: Inference | None = None,
        seconds: float = CALL_SECONDS_MAX,
    ) -> T | None:
        """Do one piece of work. That it fails is logged; it must not end the others, and has its next round."""
        owner = self._leasing.owner
        try:
            return await self._guard.call(what, work, about, seconds)
        except DeclaredDead:
            if owner == self._leasing.owner:
                await self._guarded("registering", self._begin_again)
            return None

    async def _begin_again(self) -> None:
        """Register under another id: nothing of what was ours is ours any more."""
        log.error("the store does not know this process as an owner, or not any more; beginning again")
        self._leasing.begin_again()
        self._suspects = set()
        for attempt in tuple(self._attempts.values()):
            attempt.forget()
        await self._ports.store.register(self._leasing.owner)

    def _launch(self, claim: Claim, moment: Moment | None) -> bool:
        """Attend to what was claimed, `moment` being the one before; return False if everything has ended."""
        if self._running is None:
            return False
        inference_id = claim.inference.inference_id
        attending = self._attend(claim, moment, self._tasks.get(inference_id))
        try:
            # Not in the context of an rpc that started it: that is over soon, and its log lines are its own.
            task = self._running.create_task(attending, context=self._context.copy())
        except RuntimeError:  # the last of them has just ended
            attending.close()
            return False
        if former := self._attempts.get(inference_id):  # lost by us and claimed by us again, before we noticed
            former.forget()
        self._tasks[inference_id] = task
        if claim.is_lost:
            self._recovering.add(inference_id)
        else:
            self._recovering.discard(inference_id)
        return True

    async def _attend(self, claim: Claim, moment: Moment | None, former: asyncio.Task[None] | None) -> None:
        """Do what a claimed inference needs, once what was done about it before is over."""
        inference = claim.inference
        try:
            if former:
                await asyncio.wait({former})
                if self._tasks.get(inference.inference_id) is not asyncio.current_task():
                    return  # claimed once more meanwhile
            if claim.is_lost:
                await self._guarded("recovery", lambda: recover(self._ports, claim, self._decode), inference)
            elif attempt := self._attempt(claim, moment):
                self._attempts[inference.inference_id] = attempt
                try:
                    await attempt.run()
                finally:
                    del self._attempts[inference.inference_id]
            else:
                await self._guarded("refusing", lambda: refuse(self._ports, claim), inference)
        except Exception:  # a defect of one attempt must not end the others; reconciling finds its inference
            log.exception("attempt crashed", inference_id=inference.inference_id)
        finally:
            if self._tasks.get(inference.inference_id) is asyncio.current_task():
                del self._tasks[inference.inference_id]
                self._early_cancels.discard(inference.inference_id)
                self._recovering.discard(inference.inference_id)
            # It may be in the line again, and what was behind it may run: here, or wherever there is room.
            self._bus.publish(Hint(HintKind.QUEUED))

    def _attempt(self, claim: Claim, moment: Moment | None) -> Attempt | None:
        """Return a new attempt; None if its profile or engine is gone: it was queued before a restart without them."""
        assembly = self._assemblies.get(claim.inference.profile)
        if assembly is None or assembly.profile.engine != claim.engine:
            return None
        attempt = Attempt(claim, assembly, self._ports, moment)
        if claim.inference.cancel_requested_time is not None or claim.inference.inference_id in self._early_cancels:
            attempt.cancel()
        if self._is_hurrying:
            attempt.hand_back()
        return attempt

    async def _repeat(self, what: str, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            await self._ports.clock.sleep(RECONCILE_SECONDS)
            await self._guarded(what, work)

    async def _beat(self) -> None:
        known = {inference_id: attempt.claim.lease.token for inference_id, attempt in self._attempts.items()}
        try:
            # Others must not take us for dead because of one call that hangs.
            heartbeat = await bounded(
                self._ports.clock, lambda: self._ports.store.heartbeat(self._leasing.owner), BEAT_SECONDS_MAX
            )
        except StoreUnavailableError:
            self._fitness.failed()
            raise
        self._fitness.answered()
        await self._guarded("revoking", lambda: self._reconcile(heartbeat, known), seconds=BEAT_SECONDS_MAX)
        await self._guarded("declaring dead", lambda: self._declare_dead(heartbeat), seconds=BEAT_SECONDS_MAX)

    async def _watch(self) -> None:
        await self._fitness.tell()
        self._stop_stuck()

    async def _reconcile(self, heartbeat: Heartbeat, known: Mapping[str, str]) -> None:
        """Compare what we run with what the store says that we run. `known` are the tokens from before we asked."""
        ours = {running.inference_id: running for running in heartbeat.running}
        for inference_id, attempt in tuple(self._attempts.items()):
            running, token = ours.get(inference_id), attempt.claim.lease.token
            if running and running.token == token:
                if running.is_cancel_requested:
                    attempt.cancel()
            elif known.get(inference_id) == token:
                attempt.forget()
        # One that was just claimed is not in our list yet; one that is missing twice was left by a defect.
        missing = {each.token for each in heartbeat.running if each.inference_id not in self._tasks}
        missing -= self._leasing.tokens
        orphans = missing & self._suspects
        self._suspects = missing
        if orphans:
            await self._ports.store.revoke(self._leasing.owner, orphans)
            self._wake.set()

    async def _declare_dead(self, heartbeat: Heartbeat) -> None:
        silent = self._observer.find_silent(heartbeat.beats, self._ports.clock.monotonic())
        for owner, beat in silent.items():
            if await self._ports.store.declare_dead(owner, beat):
                log.warning("declared dead; its inferences will be recovered", owner=owner)
                self._wake.set()

    def _stop_stuck(self) -> None:
        """The watchdog: an attempt that was told to stop and does not is a defect, which must not last for ever."""
        for inference_id, attempt in tuple(self._attempts.items()):
            if attempt.seconds_overdue() > STUCK_SECONDS:
                log.error("attempt is stuck; cancelled", inference_id=inference_id)
                attempt.cancel_task()

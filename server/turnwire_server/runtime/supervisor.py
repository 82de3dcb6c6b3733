"""Who runs what: claims queued inferences, keeps their attempts, stops them, and drains.

Hints from the bus make it fast; the periodic look at the store makes it right when every hint is lost.
"""

import asyncio
from collections.abc import Awaitable, Collection, Mapping
from typing import TypeVar

from turnwire_server.domain.errors import EngineFailedError, StoreUnavailableError
from turnwire_server.domain.event import Failed
from turnwire_server.domain.inference import Inference
from turnwire_server.domain.profile import Profiles
from turnwire_server.engines.base import Engine
from turnwire_server.events.bus import Bus, Hint, HintKind
from turnwire_server.events.log import DecodeFrames
from turnwire_server.runtime.inference_loop import Attempt, Ports
from turnwire_server.runtime.recovery import recover
from turnwire_server.stores.base import Claim, Ending, Fenced
from turnwire_server.telemetry.logs import bound_to, logger

# How often the store is looked at without any hint. Also the longest that a lost cancel hint delays a cancel.
RECONCILE_SECONDS = 0.5

# The most inferences that one call claims, so that claiming never keeps the store for long.
CLAIM_MAX = 64

T = TypeVar("T")

log = logger()


class Supervisor:
    """Runs the inferences of one process, at most `running_max` at a time; the others stay QUEUED."""

    def __init__(  # one argument per collaborator
        self,
        owner: str,
        ports: Ports,
        bus: Bus,
        profiles: Profiles,
        engines: Mapping[str, Engine],
        decode: DecodeFrames,
        running_max: int,
    ) -> None:
        self._owner = owner
        self._ports = ports
        self._bus = bus
        self._profiles = profiles
        self._engines = engines
        self._decode = decode
        self._running_max = running_max
        self._attempts: dict[str, Attempt] = {}
        self._suspects: set[str] = set()
        self._failures: dict[tuple[str, str], int] = {}
        self._refusing: set[str] = set()
        self._wake = asyncio.Event()
        self._finished = asyncio.Event()
        self._is_draining = False
        self._is_losing = False

    @property
    def running_count(self) -> int:
        """How many attempts this process runs now."""
        return len(self._attempts)

    async def recover(self) -> None:
        """End what processes before this one have left running. To be called before run().

        One that cannot be ended now is an orphan, and tried again with every round.
        """
        for claim in await self._ports.store.reap(self._owner):
            await self._guarded("recovery", recover(self._ports.store, claim, self._decode), claim.inference)

    async def run(self) -> None:
        """Claim and run inferences until drain() is over."""
        unsubscribe = self._bus.subscribe(self._receive)
        try:
            async with asyncio.TaskGroup() as group:
                reconciling = group.create_task(self._reconcile_forever())
                async with asyncio.TaskGroup() as attempts:
                    await self._claim_forever(attempts)
                reconciling.cancel()
        finally:
            unsubscribe()
            self._finished.set()

    async def drain(self, grace_seconds: float) -> None:
        """Claim nothing more; let attempts end by themselves for a while, then end them as lost."""
        self._is_draining = True
        self._wake.set()
        if not await self._ports.clock.wait_for(self._finished.wait(), grace_seconds):
            self.lose()
            await self._finished.wait()

    def lose(self) -> None:
        """End every attempt as lost, now."""
        self._is_draining = self._is_losing = True
        for attempt in tuple(self._attempts.values()):
            attempt.lose()
        self._wake.set()

    def _receive(self, hint: Hint) -> None:
        if hint.kind is HintKind.CANCEL and (attempt := self._attempts.get(hint.inference_id)):
            attempt.cancel()
        self._wake.set()

    async def _claim_forever(self, attempts: asyncio.TaskGroup) -> None:
        while not self._is_draining:
            self._wake.clear()
            room = min(self._running_max - len(self._attempts), CLAIM_MAX)
            claims = await self._claim(room) if room > 0 else ()
            for claim in claims:
                self._launch(attempts, claim)
            if len(claims) < CLAIM_MAX:
                await self._ports.clock.wait_for(self._wake.wait(), RECONCILE_SECONDS)

    async def _claim(self, room: int) -> tuple[Claim, ...]:
        return await self._guarded("claiming", self._ports.store.claim(self._owner, room)) or ()

    async def _guarded(self, what: str, work: Awaitable[T], about: Inference | None = None) -> T | None:
        """Do one piece of work. That it fails is logged; it must not end the others, and has its next round."""
        session_id, inference_id = (about.session_id, about.inference_id) if about else ("", "")
        key = (what, inference_id)
        try:
            done = await work
        except Exception as error:
            self._failures[key] = count = self._failures.get(key, 0) + 1
            if count & (count - 1) == 0:  # a store that stays away is told after 1, 2, 4, 8, ... rounds
                cause = error.__cause__ if isinstance(error, StoreUnavailableError) else None
                with bound_to(session_id, inference_id):
                    log.error("failed; it will be tried again", work=what, failures=count, exc_info=cause or error)
            return None
        self._failures.pop(key, None)
        return done

    def _launch(self, attempts: asyncio.TaskGroup, claim: Claim) -> None:
        profile = self._profiles.by_name.get(claim.inference.profile)
        engine = self._engines.get(claim.engine)
        if profile is None or engine is None:  # queued before a restart that took its profile away
            attempts.create_task(self._guarded("refusing", self._refuse(claim), claim.inference))
            return
        attempt = Attempt(claim, profile, engine, self._ports)
        self._attempts[claim.inference.inference_id] = attempt
        if claim.inference.cancel_requested_time is not None:
            attempt.cancel()
        if self._is_losing:
            attempt.lose()
        attempts.create_task(self._run(attempt))

    async def _refuse(self, claim: Claim) -> None:
        inference_id = claim.inference.inference_id
        message = f"profile {claim.inference.profile} with engine {claim.engine} is not configured any more"
        failure = EngineFailedError(message, engine=claim.engine).failure()
        self._refusing.add(inference_id)
        try:
            await self._ports.store.finish(claim.lease, claim.position, Ending(Failed(failure)))
        except Fenced:
            log.warning("the inference is not ours any more", inference_id=inference_id)
        finally:
            self._refusing.discard(inference_id)

    async def _run(self, attempt: Attempt) -> None:
        inference_id = attempt.claim.inference.inference_id
        try:
            await attempt.run()
        except Exception:  # a defect of one attempt must not end the others; reconciling ends its inference
            log.exception("attempt crashed", inference_id=inference_id)
        finally:
            del self._attempts[inference_id]
            self._wake.set()

    async def _reconcile_forever(self) -> None:
        while True:
            await self._ports.clock.sleep(RECONCILE_SECONDS)
            await self._guarded("reconciling", self._reconcile())
            await self._guarded("expiring", self._ports.store.expire(self._ports.clock.now()))

    async def _reconcile(self) -> None:
        """Compare what we run with what the store says that we run."""
        known = set(self._attempts)
        ours = {running.inference_id: running for running in await self._ports.store.heartbeat(self._owner)}
        for inference_id, attempt in tuple(self._attempts.items()):
            if running := ours.get(inference_id):
                if running.is_cancel_requested:
                    attempt.cancel()
            elif inference_id in known:
                attempt.forget()
        # One that was just claimed is not in our list yet; one that is missing twice was left by a defect.
        missing = set(ours) - set(self._attempts) - self._refusing
        orphans = missing & self._suspects
        self._suspects = missing
        if orphans:
            await self._take_over(orphans)

    async def _take_over(self, orphans: Collection[str]) -> None:
        for claim in await self._ports.store.reap(self._owner, orphans):
            await self._guarded("recovery", recover(self._ports.store, claim, self._decode), claim.inference)

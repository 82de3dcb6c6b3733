"""The session runtime: what the rpcs do, without gRPC."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import ExitStack, aclosing, suppress
from dataclasses import replace
from functools import partial

from turnwire_server.domain.clock import Clock
from turnwire_server.domain.errors import (
    DrainingError,
    InferenceNotFoundError,
    InferenceNotWaitingError,
    PauseNotFoundError,
    SessionNotFoundError,
    TooManyWatchersError,
)
from turnwire_server.domain.ids import Mint
from turnwire_server.domain.inference import Inference, InferenceState, WaitUntil
from turnwire_server.domain.profile import Profiles
from turnwire_server.domain.session import NewSession, PauseAction, Session, SessionChange, StepMode
from turnwire_server.domain.tool import ToolOutcome
from turnwire_server.events.bus import Bus, Hint, HintKind
from turnwire_server.events.fanout import Fanout
from turnwire_server.events.folded_log import FrameCodec
from turnwire_server.events.log import EncodeEvent
from turnwire_server.events.patience import resolve
from turnwire_server.events.subscription import Delivery, Subscription, subscribe
from turnwire_server.runtime.admission import decide_start
from turnwire_server.runtime.answers import CLIENT_ACTS, Answering, decide_answers, decide_release
from turnwire_server.runtime.checkpoint import Pause, decode_checkpoint
from turnwire_server.runtime.disconnect import Disconnects
from turnwire_server.runtime.steps import inference_of
from turnwire_server.runtime.structured_output import check_schema
from turnwire_server.runtime.supervisor import Supervisor
from turnwire_server.stores.base import Amend, SessionStore
from turnwire_server.stores.line import displaces
from turnwire_server.stores.page import Page
from turnwire_server.stores.start import Admission, Idempotency, SessionState, StartCommand, Started

# The most waits that are held at a time. A further one returns the present state at once, which is an answer as well:
# so waits never take the place of the rpcs that could end them.
WAITS_MAX = 5000

# How often a wait asks the store, whatever it was told: a hint may have been lost.
ASK_STORE_SECONDS = 5.0

_CLIENT_ACTS = frozenset({InferenceState.WAITING_FOR_TOOLS, InferenceState.PAUSED})


class Runtime:
    """Starts, waits for, cancels and watches inferences, over any store and bus."""

    def __init__(  # one argument per collaborator
        self,
        store: SessionStore,
        bus: Bus,
        fanout: Fanout,
        supervisor: Supervisor,
        profiles: Profiles,
        clock: Clock,
        mint: Mint,
        encode: EncodeEvent,
        codec: FrameCodec,
        *,
        queue_depth_max: int,
        heartbeat_seconds: float,
        watchers_max: int,
    ) -> None:
        self.store = store
        self.profiles = profiles
        self._bus = bus
        self._fanout = fanout
        self._supervisor = supervisor
        self._clock = clock
        self._mint = mint
        self._encode = encode
        self._queue_depth_max = queue_depth_max
        self._codec = codec
        self._disconnects = Disconnects(partial(self.cancel, is_session=False), clock)
        self._heartbeat_seconds = heartbeat_seconds
        self._watchers_max = watchers_max
        self._is_draining = False
        self._stream_count = 0
        self._wait_count = 0

    def check_accepting(self) -> None:
        """Refuse what would begin something new while the server drains. Errors: DrainingError."""
        if self._is_draining:
            raise DrainingError

    async def start(self, command: StartCommand) -> Started:
        """Accept an inference and have it run. Errors: those of the rpc StartInference."""
        self.check_accepting()
        check_schema(command.overrides.output_schema)
        displaced: list[str] = []

        def decide(command: StartCommand, state: SessionState) -> Admission:
            displaced[:] = [first.inference_id for first in state.unfinished[:1] if displaces(command.conflict_policy)]
            return decide_start(command, state, self.profiles, self._queue_depth_max)

        started = await self._supervisor.start(
            lambda seat: resolve(self._clock, lambda: self.store.start(command, decide, seat))
        )
        if started.created and not started.claim:
            for inference_id in displaced:
                self._bus.publish(Hint(HintKind.CANCEL, inference_id))
            self._bus.publish(Hint(HintKind.QUEUED, started.inference.inference_id))
        return started

    async def submit(
        self, principal: str, inference_id: str, outcomes: Sequence[ToolOutcome], idempotency: Idempotency | None
    ) -> tuple[Inference, tuple[str, ...]]:
        """Take answers to tool calls; return the inference, and which calls are still pending.

        Errors: those of the rpc SubmitToolResults.
        """
        self.check_accepting()
        decide = partial(decide_answers, outcomes=outcomes, answering=self._answering())
        inference = await self._amend(principal, inference_id, decide, idempotency)
        if inference.state is not InferenceState.WAITING_FOR_TOOLS:
            return inference, ()
        page = await self.store.list_waiting(principal, inference.session_id, inference.state, 1, None)
        calls = [
            call.id
            for waiting in page.items
            if waiting.inference.inference_id == inference_id
            for call in decode_checkpoint(waiting.checkpoint).pending(*CLIENT_ACTS)
        ]
        return inference, tuple(calls)

    async def set_step_mode(self, principal: str, session_id: str, step_mode: StepMode | None) -> None:
        """Turn step mode on or off. Errors: those of the rpc SetStepMode."""
        self.check_accepting()
        token = self._mint()
        await resolve(self._clock, lambda: self.store.set_step_mode(principal, session_id, step_mode, token))
        self._supervisor.hear_step_mode()  # before the reply, whatever becomes of the hint
        self._bus.publish(Hint(HintKind.STEP_MODE, "", principal, session_id))
        if step_mode is None:  # at most one inference of a session is active, and so at most one is paused
            page = await self.store.list_waiting(principal, session_id, InferenceState.PAUSED, 1, None)
            for waiting in page.items:
                if pause := decode_checkpoint(waiting.checkpoint).pause:
                    with suppress(PauseNotFoundError):  # released meanwhile
                        await self.release_pause(principal, pause.id, PauseAction.CONTINUE)

    async def list_pauses(
        self, principal: str, session_id: str, limit: int, after: int | None
    ) -> Page[tuple[Inference, Pause]]:
        """Return the pauses of a session, or of all, the oldest first. Errors: those of the rpc ListPauses."""
        page = await self.store.list_waiting(principal, session_id, InferenceState.PAUSED, limit, after)
        found = [(waiting.inference, decode_checkpoint(waiting.checkpoint).pause) for waiting in page.items]
        return Page(tuple((inference, pause) for inference, pause in found if pause), page.next)

    async def release_pause(self, principal: str, pause: str, action: PauseAction) -> Inference:
        """Release a pause. Errors: those of the rpc ReleasePause."""
        self.check_accepting()
        decide = partial(decide_release, pause_name=pause, action=action, answering=self._answering())
        try:
            return await self._amend(principal, inference_of(pause), decide, None)
        except (InferenceNotFoundError, InferenceNotWaitingError):
            raise PauseNotFoundError(pause=pause) from None

    async def _amend(
        self, principal: str, inference_id: str, decide: Amend, idempotency: Idempotency | None
    ) -> Inference:
        token = self._mint()
        inference = await resolve(
            self._clock, lambda: self.store.amend(principal, inference_id, token, decide, idempotency)
        )
        self._bus.publish(Hint(HintKind.QUEUED, inference_id))
        return inference

    def _answering(self) -> Answering:
        return Answering(self._clock.now(), self._encode)

    async def wait(self, principal: str, inference_id: str, seconds: float, until: WaitUntil) -> Inference:
        """Return the inference once `until` is met, so many seconds have passed, or the server drains.

        Errors: InferenceNotFoundError.
        """
        inference = await self.store.get_inference(principal, inference_id)
        give_up = self._clock.monotonic() + seconds
        if seconds <= 0 or _is_met(inference, until) or self._wait_count >= WAITS_MAX:
            return inference
        self._wait_count += 1
        try:
            return await self._wait_until(principal, inference, give_up, until)
        finally:
            self._wait_count -= 1

    async def _wait_until(self, principal: str, inference: Inference, give_up: float, until: WaitUntil) -> Inference:
        with self._fanout.watch(principal, inference.session_id) as topic:
            while True:
                seen, is_closed = topic.transitioned.count, topic.is_closed
                inference = await self.store.get_inference(principal, inference.inference_id)
                left = give_up - self._clock.monotonic()
                if left <= 0 or is_closed or _is_met(inference, until):
                    return inference
                await self._clock.wait_for(topic.transitioned.wait_beyond(seen), min(left, ASK_STORE_SECONDS))

    async def create_session(
        self, principal: str, new: NewSession, idempotency: Idempotency | None
    ) -> tuple[Session, bool]:
        """Create a session. Errors: those of the rpc CreateSession."""
        self.check_accepting()
        new, token = replace(new, session_id=new.session_id or self._mint()), self._mint()
        check = partial(self.profiles.get, new.profile) if new.profile else None
        return await resolve(self._clock, lambda: self.store.create_session(principal, new, token, idempotency, check))

    async def fork_session(
        self, principal: str, session_id: str, index: int | None, new: NewSession, idempotency: Idempotency | None
    ) -> tuple[Session, bool]:
        """Fork a session. Errors: those of the rpc ForkSession."""
        self.check_accepting()
        new, token = replace(new, session_id=new.session_id or self._mint()), self._mint()
        check = partial(self.profiles.get, new.profile) if new.profile else None
        return await resolve(
            self._clock,
            lambda: self.store.fork_session(principal, session_id, index, new, token, idempotency, check),
        )

    async def update_session(
        self, principal: str, session_id: str, change: SessionChange, revision: int | None
    ) -> Session:
        """Change a session. Errors: those of the rpc UpdateSession."""
        self.check_accepting()
        if change.profile:
            self.profiles.get(change.profile)
        token = self._mint()
        return await resolve(
            self._clock, lambda: self.store.update_session(principal, session_id, change, revision, token)
        )

    async def delete_session(self, principal: str, session_id: str, revision: int | None, *, force: bool) -> None:
        """Delete a session. Errors: those of the rpc DeleteSession."""
        self.check_accepting()
        log = (await self.store.get_session(principal, session_id)).log
        sent_count = 0

        async def delete() -> None:
            nonlocal sent_count
            sent_count += 1
            try:
                await self.store.delete_session(principal, session_id, revision, force=force, log=log)
            except SessionNotFoundError:
                if sent_count == 1:
                    raise  # else the first one has deleted it, whose outcome was not known

        await resolve(self._clock, delete)

    async def cancel(self, principal: str, target: str, reason: str, *, is_session: bool) -> Inference:
        """Request a cancel. Errors: those of the rpc Cancel."""
        inference_id = target
        if is_session:  # in a step of its own, so that a cancel that is sent again means the same inference
            inference_id = (await self.store.get_first_in_line(principal, target)).inference_id
        inference = await resolve(self._clock, lambda: self.store.request_cancel(principal, inference_id, reason))
        if not inference.state.is_terminal:
            self._bus.publish(Hint(HintKind.CANCEL, inference.inference_id))
        return inference

    def subscribe(self, request: Subscription, cancel_after_seconds: float | None = None) -> AsyncGenerator[Delivery]:
        """Watch a session's log. If the stream breaks and none comes back in time, its inference is cancelled.

        Errors: those of the rpc SubscribeEvents.
        """
        self.check_accepting()
        if self._stream_count >= self._watchers_max:
            raise TooManyWatchersError(watchers_max=self._watchers_max)
        deliveries = subscribe(self.store, self._fanout, request, self._clock, self._codec, self._heartbeat_seconds)
        return self._attended(request, cancel_after_seconds, deliveries)

    async def _attended(
        self, request: Subscription, cancel_after_seconds: float | None, deliveries: AsyncGenerator[Delivery]
    ) -> AsyncGenerator[Delivery]:
        """Count a stream among those that are open; one that names an inference attends it once it was let in."""
        self._stream_count += 1
        try:
            with ExitStack() as stack:
                attendance = None
                async with aclosing(deliveries):
                    async for delivery in deliveries:
                        if delivery.opened and request.inference_id:
                            attendance = stack.enter_context(
                                self._disconnects.attend(request.principal, request.inference_id, cancel_after_seconds)
                            )
                        if delivery.end and attendance:
                            attendance.has_ended = True
                        yield delivery
        finally:
            self._stream_count -= 1

    async def run(self) -> None:
        """Cancel what its watchers have left, until drain()."""
        await self._disconnects.run()

    @property
    def watcher_count(self) -> int:
        """How many streams and waits watch a session now."""
        return self._fanout.watcher_count

    async def drain(self, grace_seconds: float) -> None:
        """Accept nothing new, end what runs or hand it back, then end every stream and every Wait."""
        self._is_draining = True
        self._disconnects.close()
        await self._supervisor.drain(grace_seconds)
        self._fanout.close()

    def hurry(self) -> None:
        """Hand back what still runs now instead of letting it end by itself."""
        self._supervisor.hand_back()


def _is_met(inference: Inference, until: WaitUntil) -> bool:
    return inference.state.is_terminal or (until is WaitUntil.CLIENT_ACTION and inference.state in _CLIENT_ACTS)

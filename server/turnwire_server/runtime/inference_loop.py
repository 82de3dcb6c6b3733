"""One attempt of one inference, from its claim to its terminal event.

So far an inference is a single engine call: a model that asks for a tool ends it with TOOL_CALLS_PENDING.
"""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Any, cast

from turnwire_server.domain.clock import Clock
from turnwire_server.domain.errors import (
    EngineFailedError,
    EngineOptionsInvalidError,
    EngineStalledError,
    InferenceError,
    SessionNotFoundError,
    StoreUnavailableError,
    TurnNotFoundError,
)
from turnwire_server.domain.event import (
    Cancelled,
    EngineCallFinished,
    EngineCallStarted,
    Event,
    Failed,
    Outcome,
    Payload,
    Succeeded,
)
from turnwire_server.domain.ids import Mint
from turnwire_server.domain.inference import FinishClass
from turnwire_server.domain.lifecycle import deadline_outcome
from turnwire_server.domain.profile import Profile
from turnwire_server.domain.turn import Block, TurnView
from turnwire_server.engines.base import Emit, Engine, EngineCall, EngineChunk, EngineResult
from turnwire_server.events.log import AttemptLog, EncodeEvent
from turnwire_server.events.patience import Patience
from turnwire_server.events.snapshot import Fold
from turnwire_server.runtime.engine_view import engine_view
from turnwire_server.runtime.output import Output
from turnwire_server.stores.base import SessionStore
from turnwire_server.stores.lease import Claim, Ending, Fenced
from turnwire_server.stores.page import TurnPage
from turnwire_server.telemetry.logs import bound_to, logger

# How long a cancelled engine may take to stop (contract: Cancel). One that does not is abandoned: it keeps its task and
# nothing else.
ENGINE_STOP_SECONDS = 1.0

# How many blocks of the turn are read at a time.
BLOCKS_PAGE = 1000

# The finish classes of an inference that SUCCEEDED.
_PRODUCED = frozenset(
    {
        FinishClass.COMPLETED,
        FinishClass.MAX_TOKENS,
        FinishClass.MAX_ITERATIONS,
        FinishClass.TOOL_CALLS_PENDING,
    }
)

log = logger()


@dataclass(frozen=True, slots=True)
class Ports:
    """What every attempt of a process works with.

    `abandon` takes the task of an engine that does not stop. `refresh` has those who watch a session look at the store.
    An engine that says nothing for longer than `silence_seconds_max` is stopped.
    """

    store: SessionStore
    encode: EncodeEvent
    clock: Clock
    mint: Mint
    abandon: Callable[[asyncio.Task[EngineResult]], None]
    refresh: Callable[[str, str], None]
    silence_seconds_max: float


class Departure(Enum):
    """Why an attempt stops without an end of its inference."""

    FENCED = "fenced"  # the inference is not ours any more
    HANDED_BACK = "handed_back"  # another attempt goes on where the last step ended


class Attempt:
    """One claimed inference, while this process runs it."""

    def __init__(self, claim: Claim, profile: Profile, engine: Engine, ports: Ports) -> None:
        self.claim = claim
        self._profile = profile
        self._engine = engine
        self._ports = ports
        self._fold = Fold()
        self._unsent: tuple[bytes, ...] = ()
        self._stop_time: float | None = None
        self._is_cancel_requested = False
        self._task: asyncio.Task[Any] | None = None
        self._was_cancelled = False
        self._tell_time = ports.clock.monotonic()
        self._stop: asyncio.Future[Outcome | Departure] = asyncio.get_running_loop().create_future()
        self._patience = Patience(ports.clock)
        self._log = AttemptLog(ports.store, claim.lease, claim.position, ports.encode, self._patience)

    def cancel(self) -> None:
        """Stop because a cancel was requested. Like the other ways to stop: the first one counts, at any moment.

        But for handing back: what is to be cancelled ends here, with its partial output.
        """
        self._is_cancel_requested = True
        self._stop_with(Cancelled())

    def hand_back(self) -> None:
        """Stop because the process goes away; another one goes on."""
        self._patience.end_soon()
        self._stop_with(Departure.HANDED_BACK)

    def forget(self) -> None:
        """Stop because the inference is not ours any more; nothing is written."""
        self._patience.end_soon()
        self._stop_with(Departure.FENCED)

    def seconds_overdue(self) -> float:
        """Return for how long it has been told to stop, or past its deadline; 0 for neither."""
        now = self._ports.clock.monotonic()
        told = now - self._stop_time if self._stop_time is not None else 0.0
        return max(told, -(self._seconds_left() or 0.0), 0.0)

    def cancel_task(self) -> None:
        """Cancel the task that runs it, once: what is left to do is done, or given up, within seconds."""
        if self._task and not self._was_cancelled:
            self._was_cancelled = True
            self._task.cancel()

    def _stop_with(self, outcome: Outcome | Departure) -> None:
        if not self._stop.done():
            self._stop_time = self._ports.clock.monotonic()
            self._stop.set_result(outcome)

    async def run(self) -> None:
        """Run to the terminal event: what fails becomes the inference's outcome."""
        self._task = asyncio.current_task()
        inference = self.claim.inference
        with bound_to(inference.session_id, inference.inference_id):
            try:
                outcome = await self._produce()
                if outcome is Departure.FENCED:
                    raise Fenced
                if outcome is Departure.HANDED_BACK and not self._is_cancel_requested:
                    await self._go_back()
                else:
                    await self._finish(Cancelled() if isinstance(outcome, Departure) else outcome)
            except (Fenced, SessionNotFoundError, TurnNotFoundError):
                log.warning("attempt given up: another owner has the inference, or its session was deleted")
                self._ports.refresh(self.claim.lease.principal, inference.session_id)
            except StoreUnavailableError:
                log.exception("attempt given up: the store did not answer; it will be recovered")

    async def _produce(self) -> Outcome | Departure:
        """Run the engine until it ends or has to stop; return the outcome, or why there is none."""
        self._watch()
        blocks = await self._read_blocks()
        if self._stop.done():
            return self._stop.result()
        pump = asyncio.create_task(self._pump())
        engine = asyncio.create_task(self._call_engine(blocks))
        has_ended = False
        try:
            ends: set[asyncio.Future[Any]] = {engine, pump, self._stop}
            while not any(end.done() for end in ends):
                await asyncio.wait(ends, timeout=self._patience_left(), return_when=asyncio.FIRST_COMPLETED)
                self._watch()
            has_ended = engine.done()
        except asyncio.CancelledError:  # by the watchdog
            self._patience.end_soon()
            raise
        finally:  # however it goes on: no engine runs without us, and no event is left between the log and the end
            if not engine.done():
                await self._stop_engine(engine)
            self._unsent = self._log.close()
            error = await pump
        if error:
            raise error
        return self._outcome(engine) if has_ended else self._stop.result()

    async def _pump(self) -> Exception | None:
        """Return, not raise, why the log cannot be written, so that the engine is stopped in good order first."""
        try:
            await self._log.pump()
        except Exception as error:  # noqa: BLE001 - whatever it is, the engine has to be stopped before it is raised
            return error
        return None

    async def _stop_engine(self, engine: asyncio.Task[EngineResult]) -> None:
        engine.cancel()
        await asyncio.wait({engine}, timeout=ENGINE_STOP_SECONDS)
        if not engine.done():
            log.error("engine did not stop; abandoned", engine=self.claim.engine)
            self._ports.abandon(engine)
        elif not engine.cancelled() and (error := engine.exception()):
            log.warning("engine failed while it was stopped", engine=self.claim.engine, exc_info=error)

    async def _call_engine(self, blocks: tuple[Block, ...]) -> EngineResult:
        output = Output(self._tell, self._fold, self._ports.mint)
        entity = self._ports.mint()
        config, iteration = self.claim.inference.config, self.claim.step + 1
        call = EngineCall(
            session_id=self.claim.inference.session_id,
            inference_id=self.claim.inference.inference_id,
            iteration=iteration,
            blocks=engine_view(blocks, _system_prompt(self._profile)),
            config=config,
            tools=self.claim.overrides.tools,
            output_schema=self.claim.overrides.output_schema,
            options=self._options(),
        )
        await self._tell(EngineCallStarted(iteration, self.claim.engine, config.model), entity)
        try:
            result = await self._engine.run(call, self._hear(output))
        except (SystemExit, KeyboardInterrupt) as error:  # a defect of the engine does not end the server
            msg = f"the engine raised {type(error).__name__}"
            raise RuntimeError(msg) from error
        await output.end()
        finish_class = FinishClass.TOOL_CALLS_PENDING if output.has_tool_calls else result.finish_class
        if finish_class not in _PRODUCED:
            msg = f"the engine returned with the finish class {finish_class.name}"
            raise RuntimeError(msg)
        await self._tell(EngineCallFinished(result.usage, finish_class, result.stop_reason, result.model), entity)
        return EngineResult(finish_class, result.usage, result.stop_reason, result.model)

    def _hear(self, output: Output) -> Emit:
        """Return what the engine calls: each piece is a sign of life, also one that is not told."""

        async def emit(chunk: EngineChunk) -> None:
            self._tell_time = self._ports.clock.monotonic()
            await output.take(chunk)

        return emit

    def _options(self) -> dict[str, object]:
        text = self.claim.overrides.engine_options
        try:
            own: object = json.loads(text) if text else {}
        except (ValueError, RecursionError) as error:  # JSON that the contract allows and Python does not read
            msg = f"engine_options cannot be read: {error}"
            raise EngineOptionsInvalidError(msg, engine=self.claim.engine) from None
        if not isinstance(own, dict):
            raise EngineOptionsInvalidError("engine_options must be one JSON object", engine=self.claim.engine)
        return {**self._profile.engine_options, **cast("dict[str, object]", own)}

    async def _read_blocks(self) -> tuple[Block, ...]:
        inference = self.claim.inference
        blocks: list[Block] = []
        offset: int | None = 0
        while offset is not None:
            page = await self._patience.call(partial(self._read_page, offset))
            if page.turn.inference_id != inference.inference_id:  # deleted, and created again under the same name
                raise Fenced
            blocks.extend(page.turn.blocks)
            offset = page.next
        return tuple(blocks)

    async def _read_page(self, offset: int) -> TurnPage:
        lease, inference = self.claim.lease, self.claim.inference
        return await self._ports.store.get_turn(
            lease.principal, inference.session_id, inference.turn_index, TurnView.FULL, offset, BLOCKS_PAGE
        )

    async def _tell(self, payload: Payload, entity: str) -> None:
        inference = self.claim.inference
        event = Event(
            inference.session_id,
            inference.inference_id,
            self._ports.clock.now(),
            payload,
            entity,
            inference.attempt,
        )
        self._tell_time = self._ports.clock.monotonic()
        self._log.put(event)
        self._fold.apply(event)  # before any wait: what is in the log is in the turn, also when the wait is cancelled
        await self._log.wait_for_room()
        self._tell_time = self._ports.clock.monotonic()

    def _outcome(self, engine: asyncio.Task[EngineResult]) -> Outcome:
        if engine.cancelled():  # an engine that raises CancelledError by itself is a defect of the engine
            return Failed(EngineFailedError("the engine cancelled itself", engine=self.claim.engine).failure())
        match engine.exception():
            case None:
                return Succeeded(engine.result().finish_class)
            case InferenceError() as error:
                return Failed(error.failure())
            case error:
                log.error("engine crashed", engine=self.claim.engine, exc_info=error)
                return Failed(EngineFailedError(engine=self.claim.engine).failure())

    async def _go_back(self) -> None:
        """Hand the inference back; what was told since the last step is void."""
        await self._patience.call(
            lambda: self._ports.store.hand_back(self.claim.lease, self._log.position, is_loss=False)
        )
        log.info("inference handed back", step=self.claim.step)

    async def _finish(self, outcome: Outcome) -> None:
        ending = Ending(outcome, self._fold.usage, self._fold.model, self._fold.blocks(), self._unsent)
        # The outcome of a failed commit is unknown; if it landed, the store knows the same ending again.
        inference = await self._patience.call(
            lambda: self._ports.store.finish(self.claim.lease, self._log.position, ending)
        )
        log.info("inference finished", state=inference.state.name, finish_class=inference.finish_class.name)

    def _patience_left(self) -> float:
        """Return for how long nothing has to happen."""
        silence = self._tell_time + self._ports.silence_seconds_max - self._ports.clock.monotonic()
        left = self._seconds_left()
        return max(0.0, silence if left is None else min(silence, left))

    def _watch(self) -> None:
        """The watchdog of this inference: its timeout, and an engine that says nothing."""
        left = self._seconds_left()
        if left is not None and left <= 0:
            self._stop_with(deadline_outcome(self.claim.inference))
        elif self._log.has_room and self._ports.clock.monotonic() - self._tell_time >= self._ports.silence_seconds_max:
            idle = f"{self._ports.silence_seconds_max:g}"
            stalled = EngineStalledError(engine=self.claim.engine, idle_seconds_max=idle)
            self._stop_with(Failed(stalled.failure()))

    def _seconds_left(self) -> float | None:
        """Return how long the inference may still take, None for any time; 0 or less once its deadline has passed."""
        deadline = self.claim.inference.deadline_time
        return None if deadline is None else (deadline - self._ports.clock.now()).total_seconds()


def _system_prompt(profile: Profile) -> str:
    uses = [use for use in profile.middleware if use.name == "system_prompt"]
    return str(uses[0].settings["text"]) if uses else ""

"""One attempt of one inference: engine calls and batches of tool calls in turn, each a step, to the end or a wait."""

import asyncio
from collections.abc import Coroutine, Mapping
from dataclasses import replace
from datetime import timedelta
from enum import Enum
from typing import Any, TypeVar

from turnwire_server.domain.errors import (
    EngineFailedError,
    InferenceError,
    OutputInvalidError,
    SessionNotFoundError,
    StoreUnavailableError,
    ToolFailedError,
    TurnNotFoundError,
)
from turnwire_server.domain.event import Cancelled, DebuggerPause, ErrorRaised, Failed, Outcome, Payload, Succeeded
from turnwire_server.domain.inference import FinishClass, InferenceState
from turnwire_server.domain.turn import Block, SnapshotPhase
from turnwire_server.events.patience import Patience
from turnwire_server.runtime.answers import CLIENT_ACTS, tools_required
from turnwire_server.runtime.assembly import Assembly
from turnwire_server.runtime.attempt_record import AttemptRecord
from turnwire_server.runtime.checkpoint import CallState, Checkpoint, Next, Pause
from turnwire_server.runtime.engine_call import EngineStep, Said
from turnwire_server.runtime.ports import Ports
from turnwire_server.runtime.step_changes import Moment
from turnwire_server.runtime.steps import StepModeView, pause_of, release_if_off
from turnwire_server.runtime.structured_output import repair_block, violation_of
from turnwire_server.runtime.tool_batch import ToolBatch, calls_of
from turnwire_server.runtime.tool_plan import broken_calls_block
from turnwire_server.runtime.watchdog import Watchdog
from turnwire_server.stores.lease import Claim, Fenced
from turnwire_server.telemetry.logs import bound_to, logger
from turnwire_server.tools.base import ServerTool

# How long a cancelled engine may take to stop (contract: Cancel). One that does not is abandoned: it keeps its task and
# nothing else.
ENGINE_STOP_SECONDS = 1.0

# The engine calls of the tool loop where neither request nor profile says (contract: InferenceConfig.iterations_max).
ITERATIONS_MAX = 20

T = TypeVar("T")

log = logger()


class Departure(Enum):
    """Why an attempt stops without an end of its inference."""

    FENCED = "fenced"  # the inference is not ours any more
    HANDED_BACK = "handed_back"  # another attempt goes on where the last step ended
    WAITS = "waits"  # it is committed that the client is waited for


class Attempt:
    """One claimed inference, while this process runs it. `claimed` is the moment before it was, if that is known."""

    def __init__(self, claim: Claim, assembly: Assembly, ports: Ports, claimed: Moment | None) -> None:
        self.claim = claim
        self._assembly = assembly
        self._ports = ports
        self._stop_time: float | None = None
        self._is_cancel_requested = False
        self._task: asyncio.Task[Any] | None = None
        self._was_cancelled = False
        self._watchdog = Watchdog(claim, ports.clock, ports.silence_seconds_max)
        self._stop: asyncio.Future[Outcome | Departure] = asyncio.get_running_loop().create_future()
        self._patience = Patience(ports.clock)
        was_off = claimed if claim.is_step_mode_off else None
        self._step_mode = StepModeView(claim, ports, self._patience, was_off)
        takes_snapshots = claim.overrides.record_snapshots or assembly.profile.record_snapshots
        self._record = AttemptRecord(claim, ports, self._patience, takes_snapshots=takes_snapshots)
        self._tools: Mapping[str, ServerTool] | None = None  # those of the server, as the last engine call listed them
        self._pump: asyncio.Task[Exception | None] | None = None
        self._unsent: tuple[bytes, ...] = ()
        self._iterations_max = claim.inference.config.iterations_max or ITERATIONS_MAX

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
        """Return for how long it has been told to stop, or was seen past its deadline; 0 for neither."""
        told = self._ports.clock.monotonic() - self._stop_time if self._stop_time is not None else 0.0
        return max(told, self._watchdog.seconds_late())

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
        """Run to the terminal event, or to where the client is waited for: what fails becomes the outcome."""
        self._task = asyncio.current_task()
        inference = self.claim.inference
        with bound_to(inference.session_id, inference.inference_id):
            try:
                outcome = await self._produce()
                if outcome is Departure.FENCED:
                    raise Fenced
                if outcome is Departure.HANDED_BACK and not self._is_cancel_requested:
                    await self._record.hand_back()
                    log.info("inference handed back", step=self._record.step)
                elif outcome is not Departure.WAITS:
                    await self._finish(Cancelled() if isinstance(outcome, Departure) else outcome)
            except (Fenced, SessionNotFoundError, TurnNotFoundError):
                log.warning("attempt given up: another owner has the inference, or its session was deleted")
                self._ports.refresh(self.claim.lease.principal, inference.session_id)
            except StoreUnavailableError:
                log.exception("attempt given up: the store did not answer; it will be recovered")

    async def _produce(self) -> Outcome | Departure:
        """Go from step to step until it ends or has to stop; return the outcome, or why there is none."""
        self._watch()
        await self._record.load()
        pump = self._pump = asyncio.create_task(self._keep_pumping())
        try:
            return await self._loop()
        except asyncio.CancelledError:  # by the watchdog
            self._patience.end_soon()
            raise
        finally:  # however it goes on: no event is left between the log and the end
            self._unsent = self._record.log.close()
            if error := await pump:
                raise error

    async def _loop(self) -> Outcome | Departure:
        while True:
            if self._stop.done():
                return self._stop.result()
            if self._record.at.next is Next.END:
                return Succeeded(self._record.at.finish_class)
            is_engine = self._record.at.next is Next.ENGINE
            outcome = await (self._engine_step() if is_engine else self._tools_step())
            if outcome is not None:
                return outcome

    async def _keep_pumping(self) -> Exception | None:
        """Return, not raise, why the log cannot be written, so that what runs is stopped in good order first."""
        try:
            await self._record.log.pump()
        except Exception as error:  # noqa: BLE001 - whatever it is, the engine has to be stopped before it is raised
            return error
        return None

    async def _engine_step(self) -> Outcome | Departure | None:
        at = self._record.at
        if at.iteration >= self._iterations_max:
            return Succeeded(FinishClass.MAX_ITERATIONS)
        self._record.iteration = at.iteration + 1
        self._record.mark(SnapshotPhase.PRE_INFERENCE)
        step = EngineStep(self.claim, self._assembly, self._record, self._ports.mint, self._tell, self._watchdog.hear)
        self._watchdog.listen()
        try:
            ended = await self._until_stopped(step.run())
        finally:
            self._watchdog.rest()
            self._tools = step.tools
        if ended is None:
            return self._stop.result() if self._stop.done() else Departure.FENCED
        said = self._said(ended)
        return await self._after_engine(said) if isinstance(said, Said) else said

    async def _after_engine(self, said: Said) -> Outcome | Departure | None:
        """Commit the step and go on, or return how the inference ends, which is committed with it."""
        self._record.mark(SnapshotPhase.POST_INFERENCE)
        at = self._record.at
        following = replace(at, iteration=at.iteration + 1, calls=said.calls, finish_class=said.finish_class)
        if said.calls:
            return await self._go_on(replace(following, next=Next.TOOLS), "after_inference")
        if said.is_broken:
            return await self._go_on(replace(following, next=Next.ENGINE), "after_inference", broken_calls_block())
        is_answer = said.finish_class is not FinishClass.TOOL_CALLS_PENDING
        violation = violation_of(self.claim.overrides.output_schema, self._record.fold.blocks()) if is_answer else ""
        if violation:
            failure = OutputInvalidError(violation=violation).failure()
            repairs_max = self._assembly.profile.output_repairs_max
            if at.repair_count >= repairs_max or following.iteration >= self._iterations_max:
                return Failed(failure)
            self._record.put(ErrorRaised(failure))
            following = replace(following, next=Next.ENGINE, repair_count=at.repair_count + 1)
            return await self._go_on(following, "after_inference", repair_block(violation))
        following = replace(following, next=Next.END)
        if pause := await self._pause_at("after_inference", following):
            return await self._pause(following, pause)
        return Succeeded(said.finish_class)  # one commit for the last step and the end

    async def _tools_step(self) -> Outcome | Departure | None:
        self._record.iteration = self._record.at.iteration
        batch = ToolBatch(
            self._assembly,
            self._record,
            self._ports.abandon,
            calls_of(self._record.produced),
            {effect.call: effect.outcome for effect in self.claim.effects},
            self._tools,
        )
        try:
            outcome = await self._execute(batch)
        except BaseException:  # whatever it is: nothing of ours runs on without us
            await batch.stop(keeps_idempotent=False)
            raise
        return outcome or await self._after_tools(batch.settled)

    async def _execute(self, batch: ToolBatch) -> Outcome | Departure | None:
        """Execute a batch; return why the inference or the attempt ends with it, None if it goes on."""
        batch.begin()
        while not batch.is_done and not self._stop.done() and not self._has_lost_log():
            await batch.launch(self._stop.done)
            await self._wait({*batch.running})
            await batch.gather()
        outcome = self._stop.result() if self._stop.done() else None
        if self._has_lost_log():
            outcome = Departure.FENCED
        if outcome is None and not batch.failed_tool:
            return None
        await batch.stop(keeps_idempotent=outcome is Departure.HANDED_BACK and not self._is_cancel_requested)
        return outcome or Failed(ToolFailedError(tool=batch.failed_tool).failure())

    async def _after_tools(self, settled: set[str]) -> Outcome | Departure | None:
        at = self._record.at
        calls = tuple(replace(call, state=CallState.SETTLED) if call.id in settled else call for call in at.calls)
        following = replace(at, calls=calls)
        if following.pending(*CLIENT_ACTS):
            return await self._wait_for_client(following)
        self._record.mark(SnapshotPhase.POST_TOOLS)
        return await self._go_on(replace(following, next=Next.ENGINE, calls=()), "after_tools")

    async def _wait_for_client(self, at: Checkpoint) -> Departure:
        """Commit that the client has to act: with the step, the lease is given up."""
        patience = self._assembly.profile.tool_policy.answer_seconds_max
        answer_time = None if patience is None else self._ports.clock.now() + timedelta(seconds=patience)
        at = replace(at, answer_time=answer_time)
        await self._record.commit_wait(at, (), InferenceState.WAITING_FOR_TOOLS, tools_required(at))
        log.info("inference waits for its client", step=self._record.step)
        return Departure.WAITS

    async def _go_on(self, at: Checkpoint, phase: str, *more: Block) -> Departure | None:
        """Commit a step, and pause after it if step mode says so."""
        if pause := await self._pause_at(phase, at):
            return await self._pause(at, pause, *more)
        await self._record.commit(at, more)
        return None

    async def _pause(self, at: Checkpoint, pause: Pause, *more: Block) -> Departure:
        """Commit a step and the pause after it: the lease is given up."""
        why = DebuggerPause(pause.id, pause.phase, pause.summary, pause.deadline_time)
        await self._record.commit_wait(replace(at, pause=pause), more, InferenceState.PAUSED, why, pause.id)
        log.info("inference paused", step=self._record.step, phase=pause.phase)
        await release_if_off(self._ports, self._patience, self.claim, pause)
        return Departure.WAITS

    async def _pause_at(self, phase: str, at: Checkpoint) -> Pause | None:
        """Return the pause to make at a place of the loop, None for none."""
        if at.is_stepping_over or self._stop.done():
            return None
        step_mode = await self._step_mode.read()
        if step_mode is None:
            return None
        name = f"{self.claim.inference.inference_id}.{self._record.step + 1}"
        return pause_of(name, phase, at, step_mode, self._ports.clock.now())

    async def _until_stopped(self, work: Coroutine[Any, Any, T]) -> "asyncio.Task[T] | None":
        """Run `work` to its end and return its task; None if it was stopped before, because the attempt has to."""
        task = asyncio.create_task(work)
        try:
            while not task.done() and not self._stop.done() and not self._has_lost_log():
                await self._wait({task})
            return task if task.done() else None
        finally:
            if not task.done():
                await self._stop_engine(task)

    async def _wait(self, work: "set[asyncio.Task[Any]]") -> None:
        """Return once some of the work has ended, the attempt has to stop, or the watchdog has something to look at."""
        ends: set[asyncio.Future[Any]] = {*work, self._stop}
        if self._pump:
            ends.add(self._pump)
        patience = self._watchdog.patience_left(is_engine_held_up=not self._record.log.has_room)
        await asyncio.wait(ends, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
        self._watch()

    def _has_lost_log(self) -> bool:
        """Whether the log cannot be written any more; why is raised once what runs has been stopped."""
        return self._pump is not None and self._pump.done()

    async def _stop_engine(self, engine: "asyncio.Task[Any]") -> None:
        engine.cancel()
        await asyncio.wait({engine}, timeout=ENGINE_STOP_SECONDS)
        if not engine.done():
            log.error("engine did not stop; abandoned", engine=self.claim.engine)
            self._ports.abandon(engine)
        elif not engine.cancelled() and (error := engine.exception()):
            log.warning("engine failed while it was stopped", engine=self.claim.engine, exc_info=error)

    async def _tell(self, payload: Payload, entity: str) -> None:
        self._watchdog.hear()
        self._record.put(payload, entity)
        if not self._record.log.has_room:
            await self._record.log.wait_for_room()
            self._watchdog.hear()

    def _said(self, engine: "asyncio.Task[Said]") -> Said | Outcome:
        if engine.cancelled():  # an engine that raises CancelledError by itself is a defect of the engine
            return Failed(EngineFailedError("the engine cancelled itself", engine=self.claim.engine).failure())
        match engine.exception():
            case None:
                return engine.result()
            case InferenceError() as error:
                return Failed(error.failure())
            case error:
                log.error("engine crashed", engine=self.claim.engine, exc_info=error)
                return Failed(EngineFailedError(engine=self.claim.engine).failure())

    async def _finish(self, outcome: Outcome) -> None:
        inference = await self._record.finish(outcome, self._unsent)
        log.info("inference finished", state=inference.state.name, finish_class=inference.finish_class.name)

    def _watch(self) -> None:
        if verdict := self._watchdog.verdict(is_engine_held_up=not self._record.log.has_room):
            self._stop_with(verdict)

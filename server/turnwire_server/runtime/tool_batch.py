"""The tools of the server that one batch of calls asks for: executed side by side, each intent committed before."""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from turnwire_server.domain.errors import ToolsUnavailableError
from turnwire_server.domain.event import ToolDone, ToolResult
from turnwire_server.domain.profile import OnToolError
from turnwire_server.domain.tool import ToolCall, ToolError, ToolUse
from turnwire_server.domain.turn import Block
from turnwire_server.runtime.assembly import Assembly
from turnwire_server.runtime.attempt_record import AttemptRecord
from turnwire_server.runtime.checkpoint import CallState, PlannedCall, decode_outcome, encode_outcome
from turnwire_server.stores.lease import Effect
from turnwire_server.telemetry.logs import logger
from turnwire_server.tools.base import Invocation, ServerTool

Outcome = str | ToolError

INTERRUPTED = ToolError("the tool was interrupted; what it did is not known", "unknown_outcome")

# How long after being cancelled the executions of a batch may take to end, abandoning what does not stop included.
STOP_SECONDS = 1.5

_REFUSALS = {
    "unknown_tool": "there is no tool {name}",
    "not_allowed": "the tool {name} was not offered for this call",
}

log = logger()


@dataclass(slots=True)
class ToolBatch:
    """The calls of one batch that the server answers, while an attempt executes them. Only the attempt's task uses it.

    `calls` are the calls as the model made them, by id; `known` what came of calls before this attempt. `tools` are
    those of the server, if they were listed already.
    """

    assembly: Assembly
    record: AttemptRecord
    abandon: Callable[[asyncio.Task[Any]], None]
    calls: Mapping[str, ToolCall]
    known: Mapping[str, bytes | None]
    tools: Mapping[str, ServerTool] | None = None
    settled: set[str] = field(default_factory=set[str])
    failed_tool: str = ""
    _queue: deque[PlannedCall] = field(default_factory=deque[PlannedCall])
    _running: dict[asyncio.Task[Outcome], PlannedCall] = field(default_factory=dict[asyncio.Task[Outcome], PlannedCall])

    def begin(self) -> None:
        """Answer what needs no execution, and line up the rest."""
        for planned in self.record.at.pending(CallState.REFUSED):
            self._tell(planned, ToolError(_REFUSALS[planned.code].format(name=planned.name), planned.code))
        pending = self.record.at.pending(CallState.SERVER)
        for planned in pending:
            if (outcome := self.known.get(planned.id)) is not None:
                self._settle(planned, decode_outcome(outcome))
        self._queue.extend(planned for planned in pending if planned.id not in self.settled)

    @property
    def running(self) -> set[asyncio.Task[Outcome]]:
        """The executions under way."""
        return {*self._running}

    @property
    def is_done(self) -> bool:
        """Whether nothing more is to be waited for: all has ended, or a failure ends it."""
        return bool(self.failed_tool) or not (self._running or self._queue)

    async def launch(self, is_stopped: Callable[[], bool]) -> None:
        """Begin as many executions as the policy allows, after their intents are committed.

        None begins once the attempt has to stop, also if it has to since; those are lined up again.
        """
        room = self.assembly.profile.tool_policy.parallelism_max - len(self._running)
        begun = [self._queue.popleft() for _ in range(min(room, len(self._queue)))] if not self.failed_tool else []
        if not begun:
            return
        await self.record.record([Effect(planned.id) for planned in begun])
        if is_stopped():
            self._queue.extendleft(reversed(begun))
            return
        for planned in begun:
            self._running[asyncio.create_task(self._execute(planned))] = planned

    async def gather(self) -> None:
        """Commit what came of the executions that have ended since, and tell it."""
        ended = [task for task in self._running if task.done()]
        effects: list[Effect] = []
        for task in ended:
            planned = self._running.pop(task)
            outcome = _outcome_of(task)
            effects.append(Effect(planned.id, encode_outcome(outcome)))
            self._settle(planned, outcome)
        if effects:
            await self.record.record(effects)

    async def stop(self, *, keeps_idempotent: bool) -> None:
        """Stop what runs; what it did is not known then, and that is its outcome.

        `keeps_idempotent`: another attempt goes on, which executes again what may be executed again.
        """
        for task in self._running:
            task.cancel()
        if self._running:
            await asyncio.wait(self._running, timeout=STOP_SECONDS)
        effects: list[Effect] = []
        for task, planned in self._running.items():
            if not task.done():
                log.error("tool did not stop; abandoned", tool=planned.name)
                self.abandon(task)
            has_outcome = task.done() and not task.cancelled()
            if has_outcome or not (keeps_idempotent and planned.is_idempotent):
                outcome = _outcome_of(task) if has_outcome else INTERRUPTED
                effects.append(Effect(planned.id, encode_outcome(outcome)))
                self._tell(planned, outcome)
        self._running.clear()
        if effects and keeps_idempotent:
            await self.record.record(effects)

    def _settle(self, planned: PlannedCall, outcome: Outcome) -> None:
        self._tell(planned, outcome)
        if isinstance(outcome, ToolError) and self.assembly.profile.tool_policy.on_error is OnToolError.ABORT:
            self.failed_tool = self.failed_tool or planned.name

    def _tell(self, planned: PlannedCall, outcome: Outcome) -> None:
        self.settled.add(planned.id)
        self.record.put(ToolResult(ToolUse(planned.id, outcome)), planned.id)
        self.record.put(ToolDone(), planned.id)

    async def _execute(self, planned: PlannedCall) -> Outcome:
        try:
            tools = await self.assembly.registry.list_tools() if self.tools is None else self.tools
        except ToolsUnavailableError as error:
            return ToolError(error.message, "unavailable")
        if (tool := tools.get(planned.name)) is None:  # it was there when the call was made
            return ToolError(_REFUSALS["unknown_tool"].format(name=planned.name), "unknown_tool")
        inference, call = self.record.inference, self.calls[planned.id]
        args = call.args if planned.args is None else planned.args
        invocation = Invocation(inference.session_id, inference.inference_id, ToolCall(call.id, call.name, args))
        return await self.assembly.executor.execute(tool, invocation)


def _outcome_of(task: asyncio.Task[Outcome]) -> Outcome:
    if task.cancelled():
        return INTERRUPTED
    if error := task.exception():  # a defect of the executor: it must not end the inference
        log.error("the execution of a tool crashed", exc_info=error)
        return ToolError("the execution of the tool crashed", "crashed")
    return task.result()


def calls_of(blocks: Sequence[Block]) -> dict[str, ToolCall]:
    """Return the tool calls among blocks, by id; of calls with the same id the newest."""
    return {block.kind.id: block.kind for block in blocks if isinstance(block.kind, ToolCall)}

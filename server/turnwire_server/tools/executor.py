"""Executes one call of one tool. Whatever the tool does, what comes of it is data: a result, or a ToolError.

How many calls run at a time, which tools may be called and what a failure means for the inference is not decided here.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, cast

from turnwire_server.domain.clock import Clock
from turnwire_server.domain.json_text import is_json, is_json_object
from turnwire_server.domain.profile import ToolPolicy
from turnwire_server.domain.tool import ToolError
from turnwire_server.telemetry.logs import logger
from turnwire_server.tools.base import Invocation, ServerTool, ToolFailure
from turnwire_server.tools.schema import NO_ARGUMENTS, compile_schema

# How long a cancelled tool may take to stop (contract: Cancel). One that does not is abandoned: it keeps its task and
# nothing else.
STOP_SECONDS = 1.0

# The longest pause before a repetition, however often it has doubled.
RETRY_SECONDS_MAX = 60.0

# Contract: ToolUse.result, ToolError.message, ToolError.code.
RESULT_BYTES_MAX = 1_048_576
MESSAGE_BYTES_MAX = 65_536
CODE_LENGTH_MAX = 64

# What goes wrong again however often it is tried.
_LASTING = frozenset({"invalid_args", "result_too_large"})

log = logger()


@dataclass(frozen=True, slots=True)
class _Failed:
    """A failure, and whether the tool itself says that the call may be made again; None: it says nothing."""

    error: ToolError
    may_repeat: bool | None = None


class ToolExecutor:
    """Executes calls, any number at once, by the rules of one profile.

    `abandon` takes the task of a tool that does not stop.
    """

    def __init__(self, policy: ToolPolicy, clock: Clock, abandon: Callable[[asyncio.Task[Any]], None]) -> None:
        self._policy = policy
        self._clock = clock
        self._abandon = abandon

    async def execute(self, tool: ServerTool, invocation: Invocation) -> str | ToolError:
        """Execute a call, again if it fails and may be repeated; return the result as JSON text, or the failure.

        Cancelled, it stops the tool first, and waits at most STOP_SECONDS for that.
        """
        args = invocation.call.args or "{}"
        if error := _check(tool, args):
            return error
        invocation = replace(invocation, call=replace(invocation.call, args=args))
        for repetition in range(self._policy.retries_max):
            outcome = await self._try(tool, invocation)
            if isinstance(outcome, str):
                return outcome
            if not _may_repeat(tool, outcome):
                return outcome.error
            log.warning("tool failed; it is tried again", tool=tool.definition.tool.name, code=outcome.error.code)
            await self._clock.sleep(min(self._policy.retry_seconds * 2**repetition, RETRY_SECONDS_MAX))
        outcome = await self._try(tool, invocation)
        return outcome if isinstance(outcome, str) else outcome.error

    async def _try(self, tool: ServerTool, invocation: Invocation) -> str | _Failed:
        own = tool.definition.timeout_seconds
        seconds = self._policy.timeout_seconds if own is None else own
        task = asyncio.create_task(_run(tool, invocation))
        try:
            await self._clock.wait_for(asyncio.wait({task}), seconds)
        except asyncio.CancelledError:
            await self._stop(task, tool)
            raise
        if not task.done():
            has_stopped = await self._stop(task, tool) and tool.definition.can_stop
            error = ToolError(f"the tool did not answer within {seconds:g} s", "timeout")
            return _Failed(error, may_repeat=None if has_stopped else False)  # never two of them at once
        return _outcome(tool, task)

    async def _stop(self, task: asyncio.Task[str], tool: ServerTool) -> bool:
        """Cancel a tool; return whether it stopped. It is abandoned if not, and if we are told to stop ourselves."""
        name = tool.definition.tool.name
        task.cancel()
        try:
            await self._clock.wait_for(asyncio.wait({task}), STOP_SECONDS)
        finally:
            if not task.done():
                log.error("tool did not stop; abandoned", tool=name)
                self._abandon(task)
            elif not task.cancelled() and (error := task.exception()):
                log.warning("tool failed while it was stopped", tool=name, exc_info=error)
        return task.done()


async def _run(tool: ServerTool, invocation: Invocation) -> str:
    try:
        return await tool.run(invocation)
    except (SystemExit, KeyboardInterrupt) as error:  # a defect of the tool does not end the server
        msg = f"the tool raised {type(error).__name__}"
        raise RuntimeError(msg) from error


def _check(tool: ServerTool, args: str) -> ToolError | None:
    try:
        schema = compile_schema(tool.definition.tool.input_schema or NO_ARGUMENTS)
    except ValueError as error:
        log.error("the input schema of a tool cannot be used", tool=tool.definition.tool.name, reason=str(error))
        return ToolError("the tool cannot be used: its input schema is not valid", "crashed")
    violation = schema.violation(args)
    if not violation and not is_json_object(args):
        violation = "the arguments have to be one JSON object"
    return ToolError(f"invalid arguments: {violation}", "invalid_args") if violation else None


def _may_repeat(tool: ServerTool, failed: _Failed) -> bool:
    if failed.error.code in _LASTING or failed.may_repeat is False:
        return False
    return tool.definition.is_idempotent or failed.may_repeat is True


def _outcome(tool: ServerTool, task: asyncio.Task[str]) -> str | _Failed:
    """Say what came of a task that is done. What a crash says is for the log: it may hold what nobody should see."""
    name = tool.definition.tool.name
    error = asyncio.CancelledError() if task.cancelled() else task.exception()
    if isinstance(error, ToolFailure):
        code = _cut(error.code)[:CODE_LENGTH_MAX] or "failed"
        return _Failed(ToolError(_cut(error.message), code), may_repeat=error.may_repeat or None)
    if error is not None:  # one that cancels itself has a defect as well
        log.error("tool crashed", tool=name, exc_info=error)
        return _Failed(ToolError(f"the tool crashed ({type(error).__name__})", "crashed"))
    result = task.result()
    if not isinstance(cast("object", result), str):
        log.error("tool returned what is not JSON text", tool=name)
        return _Failed(ToolError("the tool crashed (its result is not JSON text)", "crashed"))
    if len(result) > RESULT_BYTES_MAX or len(result.encode("utf-8", "surrogatepass")) > RESULT_BYTES_MAX:
        return _Failed(ToolError(f"the result has more than {RESULT_BYTES_MAX} bytes", "result_too_large"))
    if not _is_json(result):
        log.error("tool returned what is not JSON", tool=name)
        return _Failed(ToolError("the tool crashed (its result is not JSON)", "crashed"))
    return result


def _is_json(text: str) -> bool:
    try:
        text.encode()  # a lone half of a surrogate pair cannot be sent
    except UnicodeEncodeError:
        return False
    return is_json(text)


def _cut(message: str) -> str:
    """Return a text that the contract takes for a message."""
    data = message.encode("utf-8", "replace")
    return data[:MESSAGE_BYTES_MAX].decode("utf-8", "ignore")

"""How one call of a tool is executed."""

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from structlog.testing import capture_logs

from turnwire_server.domain.profile import ToolPolicy
from turnwire_server.domain.tool import Tool, ToolCall, ToolError, ToolPlacement
from turnwire_server.tools.base import Invocation, ToolDefinition, ToolFailure
from turnwire_server.tools.executor import (
    CODE_LENGTH_MAX,
    MESSAGE_BYTES_MAX,
    RESULT_BYTES_MAX,
    RETRY_SECONDS_MAX,
    STOP_SECONDS,
    ToolExecutor,
)
from turnwire_server.tools.function import tool

Act = Callable[[Invocation], Awaitable[str]]
SCHEMA = '{"type": "object", "properties": {"n": {"type": "integer"}}, "additionalProperties": false}'


class HandClock:
    """A clock that is moved by hand. What it is asked for is in `asked`; a sleep is over at once."""

    def __init__(self) -> None:
        self.asked: list[float] = []
        self.slept: list[float] = []
        self._timer: asyncio.Future[None] | None = None
        self._is_asked = asyncio.Event()

    def now(self) -> datetime:
        return datetime.fromtimestamp(0, UTC)

    def monotonic(self) -> float:
        return 0.0

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    async def wait_for(self, awaitable: Awaitable[object], seconds: float) -> bool:
        self.asked.append(seconds)
        self._timer = timer = asyncio.get_running_loop().create_future()
        self._is_asked.set()
        task = asyncio.ensure_future(awaitable)
        try:
            await asyncio.wait({task, timer}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            is_done = task.done()
            task.cancel()
            await asyncio.wait({task})
        return is_done

    async def run_out(self, seconds: float) -> None:
        """Have the time pass for which somebody waits, or will."""
        while self.asked[-1:] != [seconds]:
            self._is_asked.clear()
            await self._is_asked.wait()
        assert self._timer is not None
        self._timer.set_result(None)


class ActingTool:
    """A tool that does what it is told to, one after the other, and the last one for ever."""

    def __init__(self, *acts: Act | str | BaseException, schema: str = SCHEMA, **definition: Any) -> None:
        self.definition = ToolDefinition(Tool("acting", "", schema, ToolPlacement.SERVER), **definition)
        self.acts: Sequence[Act | str | BaseException] = acts
        self.invocations: list[Invocation] = []

    async def run(self, invocation: Invocation) -> str:
        self.invocations.append(invocation)
        act = self.acts[min(len(self.invocations), len(self.acts)) - 1]
        if isinstance(act, BaseException):
            raise act
        return act if isinstance(act, str) else await act(invocation)


class Stubborn:
    """Does not stop when it is cancelled, until it is released."""

    def __init__(self) -> None:
        self.began = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.release = asyncio.Event()

    async def __call__(self, _invocation: Invocation) -> str:
        self.began.set()
        while not self.release.is_set():
            try:
                await self.release.wait()
            except asyncio.CancelledError:
                self.cancelled.set()
        return '"late"'


async def hang(_invocation: Invocation) -> str:
    await asyncio.Event().wait()
    return ""


class World:
    """An executor with what it works with."""

    def __init__(self, **policy: Any) -> None:
        self.clock = HandClock()
        self.abandoned: list[asyncio.Task[Any]] = []
        self.executor = ToolExecutor(ToolPolicy(**policy), self.clock, self.abandoned.append)

    async def execute(self, tool: ActingTool, args: str = "{}") -> str | ToolError:
        return await self.executor.execute(tool, Invocation("session", "inference", ToolCall("call", "acting", args)))


async def test_a_result_is_what_the_tool_returned() -> None:
    tool = ActingTool('{"a": 1.0}')
    assert await World().execute(tool, '{"n": 1}') == '{"a": 1.0}'
    assert tool.invocations == [Invocation("session", "inference", ToolCall("call", "acting", '{"n": 1}'))]


async def test_no_arguments_are_an_empty_object() -> None:
    for schema in (SCHEMA, ""):
        tool = ActingTool("1", schema=schema)
        assert await World().execute(tool, "") == "1"
        assert tool.invocations[0].call.args == "{}"


@pytest.mark.parametrize(
    ("schema", "args", "said"),
    [
        (SCHEMA, '{"n": "1"}', '$.n: "1" is not of type "integer"'),
        (SCHEMA, '{"n": 1', "not JSON"),
        (SCHEMA, "[]", 'is not of type "object"'),
        ("true", "[]", "the arguments have to be one JSON object"),
        ("", '{"n": 1}', "Additional properties are not allowed"),
    ],
)
async def test_arguments_that_break_the_schema_reach_no_tool_and_are_not_tried_again(
    schema: str, args: str, said: str
) -> None:
    tool, world = ActingTool("1", schema=schema, is_idempotent=True), World(retries_max=3)
    error = await world.execute(tool, args)
    assert isinstance(error, ToolError)
    assert error.code == "invalid_args"
    assert said in error.message
    assert (tool.invocations, world.clock.slept) == ([], [])


async def test_a_tool_whose_schema_is_not_valid_cannot_be_used() -> None:
    tool = ActingTool("1", schema='{"type": 1}')
    with capture_logs() as logs:
        error = await World().execute(tool)
    assert isinstance(error, ToolError)
    assert (error.code, tool.invocations, len(logs)) == ("crashed", [], 1)


@pytest.mark.parametrize(
    ("act", "code", "said"),
    [
        (ToolFailure("no such city"), "failed", "no such city"),
        (ToolFailure("later", "overloaded"), "overloaded", "later"),
        (ToolFailure("", ""), "failed", ""),
        (ValueError("hunter2"), "crashed", "the tool crashed (ValueError)"),
        (SystemExit(3), "crashed", "the tool crashed (RuntimeError)"),
        (KeyboardInterrupt(), "crashed", "the tool crashed (RuntimeError)"),
        (asyncio.CancelledError(), "crashed", "the tool crashed (CancelledError)"),
        (BaseExceptionGroup("two", [SystemExit()]), "crashed", "the tool crashed (BaseExceptionGroup)"),
        ("", "crashed", "its result is not JSON"),
        ("NaN", "crashed", "its result is not JSON"),
        ('"\ud800"', "crashed", "its result is not JSON"),
        ("[" * 100_000, "crashed", "its result is not JSON"),
        ('"' + "é" * (RESULT_BYTES_MAX // 2) + '"', "result_too_large", "more than 1048576 bytes"),
    ],
)
async def test_whatever_a_tool_does_is_data(act: str | BaseException, code: str, said: str) -> None:
    error = await World().execute(ActingTool(act))
    assert isinstance(error, ToolError)
    assert error.code == code
    assert said in error.message


async def test_a_result_that_is_no_text_is_a_crash() -> None:
    async def wrong(_invocation: Invocation) -> Any:
        return {"not": "text"}

    assert await World().execute(ActingTool(wrong)) == ToolError(
        "the tool crashed (its result is not JSON text)", "crashed"
    )


async def test_the_largest_result_is_one() -> None:
    text = '"' + "a" * (RESULT_BYTES_MAX - 2) + '"'
    assert await World().execute(ActingTool(text)) == text


async def test_a_crash_is_logged_and_not_told() -> None:
    with capture_logs() as logs:
        error = await World().execute(ActingTool(ValueError("hunter2")))
    assert "hunter2" not in str(error)
    assert [(line["event"], line["tool"], repr(line["exc_info"])) for line in logs] == [
        ("tool crashed", "acting", "ValueError('hunter2')")
    ]


async def test_a_failure_has_the_size_that_the_contract_allows() -> None:
    error = await World().execute(ActingTool(ToolFailure("é\ud800" * MESSAGE_BYTES_MAX, "c\ud800" * 100)))
    assert isinstance(error, ToolError)
    assert MESSAGE_BYTES_MAX - 3 < len(error.message.encode()) <= MESSAGE_BYTES_MAX
    assert error.code == ("c?" * 100)[:CODE_LENGTH_MAX]


@pytest.mark.parametrize(("own", "seconds"), [(None, 30.0), (2.5, 2.5)])
async def test_a_timeout_is_the_tools_own_before_that_of_the_policy(own: float | None, seconds: float) -> None:
    world = World(timeout_seconds=30.0)
    running = asyncio.create_task(world.execute(ActingTool(hang, timeout_seconds=own)))
    await world.clock.run_out(seconds)
    assert await running == ToolError(f"the tool did not answer within {seconds:g} s", "timeout")
    assert world.abandoned == []


async def test_a_tool_that_does_not_stop_is_abandoned_and_not_tried_again() -> None:
    act, world = Stubborn(), World(retries_max=3)
    tool = ActingTool(act, is_idempotent=True)
    running = asyncio.create_task(world.execute(tool))
    await world.clock.run_out(30.0)
    await world.clock.run_out(STOP_SECONDS)
    error = await running
    assert isinstance(error, ToolError)
    assert (error.code, len(tool.invocations), len(world.abandoned)) == ("timeout", 1, 1)
    assert act.cancelled.is_set()
    act.release.set()
    assert await world.abandoned[0] == '"late"'


async def test_cancelling_stops_the_tool_first() -> None:
    ended: list[str] = []

    async def clean_up(_invocation: Invocation) -> str:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append("tool")
        return ""

    world = World(retries_max=3)
    running = asyncio.create_task(world.execute(ActingTool(clean_up, is_idempotent=True)))
    await world.clock.wait_for(asyncio.sleep(0), 0)
    running.cancel()
    await asyncio.wait({running})
    assert (running.cancelled(), ended, world.abandoned) == (True, ["tool"], [])


@pytest.mark.parametrize("is_cancelled_again", [True, False])
async def test_cancelling_waits_for_a_tool_that_does_not_stop_no_longer_than_it_has_to(
    *, is_cancelled_again: bool
) -> None:
    act, world = Stubborn(), World()
    running = asyncio.create_task(world.execute(ActingTool(act)))
    await act.began.wait()
    running.cancel()
    await act.cancelled.wait()
    assert not running.done()
    if is_cancelled_again:
        running.cancel()
    else:
        await world.clock.run_out(STOP_SECONDS)
    await asyncio.wait({running})
    assert (running.cancelled(), len(world.abandoned)) == (True, 1)
    act.release.set()
    await asyncio.wait(world.abandoned)


async def test_a_tool_that_fails_while_it_is_stopped_is_logged() -> None:
    async def fail(_invocation: Invocation) -> str:
        try:
            await asyncio.Event().wait()
        finally:
            raise OSError("gone")

    world = World()
    with capture_logs() as logs:
        running = asyncio.create_task(world.execute(ActingTool(fail)))
        await world.clock.run_out(30.0)
        assert isinstance(await running, ToolError)
    assert [line["event"] for line in logs] == ["tool failed while it was stopped"]


@pytest.mark.parametrize(
    ("act", "is_idempotent", "tries"),
    [
        (ToolFailure("no"), False, 1),
        (ToolFailure("no"), True, 4),
        (ToolFailure("no", may_repeat=True), False, 4),
        (ToolFailure("no", "invalid_args"), True, 1),
        (ToolFailure("no", "invalid_args", may_repeat=True), False, 1),
        (ValueError(), False, 1),
        (ValueError(), True, 4),
        ("NaN", True, 4),
        ('"' + "a" * RESULT_BYTES_MAX + '"', True, 1),
    ],
)
async def test_only_what_may_be_repeated_is(act: str | Exception, is_idempotent: bool, tries: int) -> None:
    tool, world = ActingTool(act, is_idempotent=is_idempotent), World(retries_max=3, retry_seconds=0.5)
    assert isinstance(await world.execute(tool), ToolError)
    assert len(tool.invocations) == tries
    assert world.clock.slept == [0.5, 1.0, 2.0][: tries - 1]


async def test_a_timeout_is_tried_again_if_the_tool_is_idempotent() -> None:
    tool, world = ActingTool(hang, '"there"', is_idempotent=True), World(retries_max=1)
    running = asyncio.create_task(world.execute(tool))
    await world.clock.run_out(30.0)
    assert await running == '"there"'


async def test_a_tool_that_may_go_on_after_its_timeout_is_not_tried_again() -> None:
    def in_a_thread() -> str:
        released.wait(10)
        return "late"

    released, world = threading.Event(), World(retries_max=3)
    function = tool(is_idempotent=True)(in_a_thread)
    running = asyncio.create_task(world.executor.execute(function, Invocation("s", "i", ToolCall("call", "x", "{}"))))
    await world.clock.run_out(30.0)
    assert await running == ToolError("the tool did not answer within 30 s", "timeout")
    assert world.clock.slept == []
    released.set()


async def test_trying_again_ends_with_the_first_result() -> None:
    tool, world = ActingTool(ValueError(), ToolFailure("no"), '"yes"', is_idempotent=True), World(retries_max=9)
    assert await world.execute(tool) == '"yes"'
    assert len(tool.invocations) == 3


async def test_a_pause_does_not_grow_for_ever() -> None:
    tool, world = ActingTool(ToolFailure("no"), is_idempotent=True), World(retries_max=9, retry_seconds=1.0)
    await world.execute(tool)
    assert max(world.clock.slept) == RETRY_SECONDS_MAX


async def test_any_number_of_calls_run_at_once() -> None:
    gate = asyncio.Event()

    async def wait(invocation: Invocation) -> str:
        await gate.wait()
        return str(json.loads(invocation.call.args)["n"])

    world, tool = World(), ActingTool(wait)
    calls = [asyncio.create_task(world.execute(tool, json.dumps({"n": n}))) for n in range(100)]
    await asyncio.sleep(0)
    gate.set()
    assert await asyncio.gather(*calls) == [str(n) for n in range(100)]

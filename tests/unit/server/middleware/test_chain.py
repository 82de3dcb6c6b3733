"""The chain: the order, and who is to blame."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from turnwire_server.domain.errors import (
    EngineRateLimitedError,
    MiddlewareFailedError,
    OutputTooLargeError,
    ToolsUnavailableError,
)
from turnwire_server.domain.turn import Block, User
from turnwire_server.engines.base import Emit, EngineCall, EngineChunk, EngineResult, PartDelta
from turnwire_server.middleware.base import Proceed, Scope
from turnwire_server.middleware.chain import chain
from turnwire_server.tools.base import ServerTool
from unit.server.middleware.stage import Play, RecordingScope, engine_call, said

Act = Callable[[EngineCall, Emit, Proceed], Awaitable[EngineResult]]


class Acting:
    """A middleware that does what a test says."""

    tools: Sequence[ServerTool] = ()

    def __init__(self, act: Act, name: str = "acting") -> None:
        self.name = name
        self._act = act

    async def call(self, call: EngineCall, emit: Emit, scope: Scope, proceed: Proceed) -> EngineResult:
        return await self._act(call, emit, proceed)

    async def aclose(self) -> None:
        """There is nothing to give back."""


async def transparent(call: EngineCall, emit: Emit, proceed: Proceed) -> EngineResult:
    async def hear(chunk: EngineChunk) -> None:
        await emit(chunk)

    return await proceed(call, hear)


def raising(error: BaseException) -> Act:
    async def act(call: EngineCall, emit: Emit, proceed: Proceed) -> EngineResult:
        raise error

    return act


def raising_proceed(error: BaseException) -> Proceed:
    async def proceed(call: EngineCall, emit: Emit) -> EngineResult:
        raise error

    return proceed


def marking(mark: str) -> Act:
    """See the call first and the output last: the block's text and the deltas get the mark."""

    async def act(call: EngineCall, emit: Emit, proceed: Proceed) -> EngineResult:
        async def hear(chunk: EngineChunk) -> None:
            await emit(replace(chunk, delta=chunk.delta + mark) if isinstance(chunk, PartDelta) else chunk)

        return await proceed(replace(call, blocks=(*call.blocks, Block("", User(mark)))), hear)

    return act


async def test_first_is_outermost() -> None:
    play = Play()
    result = await play.run([Acting(marking("1")), Acting(marking("2"))], engine_call(said("x")))
    assert [block.kind for block in play.seen[0].blocks[1:]] == [User("1"), User("2")]
    assert play.text == "x21"
    assert result.model == "scripted"


async def test_without_middleware_it_is_the_engine() -> None:
    play = Play()
    assert chain([], RecordingScope(), play.engine) == play.engine


@pytest.mark.parametrize(
    "error",
    [
        EngineRateLimitedError(engine="e", http_status=429),
        OutputTooLargeError(output_bytes_max=1),
        ToolsUnavailableError(source="s"),
        RuntimeError("the engine crashed"),
        SystemExit(3),
        asyncio.CancelledError("by itself"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_what_is_raised_inside_passes(error: BaseException) -> None:
    with pytest.raises(type(error)) as raised, capture_logs() as lines:
        await Play().run([Acting(transparent), Acting(transparent)], engine_call(), raising_proceed(error))
    assert raised.value is error
    assert (error.__cause__, error.__context__) == (None, None)
    assert lines == []


@pytest.mark.parametrize("error", [ValueError("secret"), SystemExit(1), KeyboardInterrupt(), asyncio.CancelledError()])
async def test_crash_is_the_middlewares(error: BaseException) -> None:
    with pytest.raises(MiddlewareFailedError) as raised, capture_logs() as lines:
        await Play().run([Acting(transparent, "outer"), Acting(raising(error), "inner")], engine_call())
    assert raised.value.metadata == {"middleware": "inner"}
    assert raised.value.__cause__ is error
    assert "secret" not in raised.value.message
    assert [(line["event"], line["middleware"], line["exc_info"]) for line in lines] == [
        ("middleware crashed", "inner", error)
    ]


async def test_refusal_says_why() -> None:
    refusal = MiddlewareFailedError("the budget is used up", middleware="acting")
    with pytest.raises(MiddlewareFailedError, match="budget") as raised, capture_logs() as lines:
        await Play().run(Acting(raising(refusal)), engine_call())
    assert raised.value is refusal
    assert lines == []


async def test_crash_after_the_call() -> None:
    async def act(call: EngineCall, emit: Emit, proceed: Proceed) -> EngineResult:
        await proceed(call, emit)
        raise KeyError

    with pytest.raises(MiddlewareFailedError):
        await Play().run(Acting(act), engine_call())


async def test_result_of_another_kind_is_a_crash() -> None:
    async def act(call: EngineCall, emit: Emit, proceed: Proceed) -> EngineResult:
        await proceed(call, emit)
        return None  # type: ignore[return-value]

    with pytest.raises(MiddlewareFailedError) as raised:
        await Play().run(Acting(act), engine_call())
    assert "NoneType" in str(raised.value.__cause__)


async def wrapping(call: EngineCall, emit: Emit, proceed: Proceed) -> EngineResult:
    try:
        return await proceed(call, emit)
    except EngineRateLimitedError as error:
        raise LookupError from error


async def grouping(call: EngineCall, emit: Emit, proceed: Proceed) -> EngineResult:
    async def inside() -> EngineResult:
        return await proceed(call, emit)

    async with asyncio.TaskGroup() as group:
        task = group.create_task(inside())
    return task.result()


async def repeating(call: EngineCall, emit: Emit, proceed: Proceed) -> EngineResult:
    for _ in range(2):
        with contextlib.suppress(EngineRateLimitedError):
            return await proceed(call, emit)
    return await proceed(call, emit)


@pytest.mark.parametrize("act", [wrapping, grouping, repeating])
async def test_wrapped_error_passes_as_it_was(act: Act) -> None:
    error = EngineRateLimitedError(engine="e", http_status=429)
    with pytest.raises(EngineRateLimitedError) as raised:
        await Play().run([Acting(act), Acting(act)], engine_call(), raising_proceed(error))
    assert raised.value is error


async def test_crash_in_a_cleanup_is_a_crash() -> None:
    async def act(call: EngineCall, emit: Emit, proceed: Proceed) -> EngineResult:
        try:
            return await proceed(call, emit)
        finally:
            raise KeyError

    with pytest.raises(MiddlewareFailedError):
        await Play().run(Acting(act), engine_call(said(fail={})))


async def test_middleware_may_answer_for_a_failed_engine() -> None:
    expected = EngineResult(finish_class=(await Play().run([], engine_call())).finish_class, model="other")

    async def act(call: EngineCall, emit: Emit, proceed: Proceed) -> EngineResult:
        try:
            return await proceed(call, emit)
        except EngineRateLimitedError:
            return expected

    fail = said(fail={"reason": "ENGINE_RATE_LIMITED"})
    assert await Play().run(Acting(act), engine_call(fail)) == expected


def listening(error: BaseException) -> Act:
    """Crash when something is said."""

    async def act(call: EngineCall, emit: Emit, proceed: Proceed) -> EngineResult:
        async def hear(chunk: EngineChunk) -> None:
            raise error

        return await proceed(call, hear)

    return act


async def careless(call: EngineCall, emit: Emit) -> EngineResult:
    """An engine that does not care whether it is heard."""
    for _ in range(2):
        with contextlib.suppress(MiddlewareFailedError):
            await emit(PartDelta(0, "x"))
    return EngineResult((await Play().run([], engine_call())).finish_class)


async def explaining(call: EngineCall, emit: Emit) -> EngineResult:
    """An engine that takes whatever is raised for its own failure."""
    try:
        await emit(PartDelta(0, "x"))
    except Exception as error:
        raise EngineRateLimitedError(engine="e", http_status=429) from error
    raise AssertionError


@pytest.mark.parametrize("engine", [None, careless, explaining])
async def test_crash_of_an_emit_is_the_middlewares(engine: Proceed | None) -> None:
    with pytest.raises(MiddlewareFailedError) as raised, capture_logs() as lines:
        await Play().run(
            [Acting(transparent, "outer"), Acting(listening(KeyError()), "listening"), Acting(transparent, "inner")],
            engine_call(),
            engine,
        )
    assert raised.value.metadata == {"middleware": "listening"}
    assert [line["middleware"] for line in lines] == ["listening"]


async def test_what_the_outer_emit_raises_is_nobodys_crash() -> None:
    error = OutputTooLargeError(output_bytes_max=1)

    async def full(chunk: EngineChunk) -> None:
        raise error

    async def wrapping_emit(call: EngineCall, emit: Emit, proceed: Proceed) -> EngineResult:
        async def hear(chunk: EngineChunk) -> None:
            try:
                await emit(chunk)
            except OutputTooLargeError as caught:
                raise RuntimeError from caught

        return await proceed(call, hear)

    async def own(call: EngineCall, emit: Emit, proceed: Proceed) -> EngineResult:
        await emit(PartDelta(0, "of the middleware's own"))
        return await proceed(call, emit)

    for act in (transparent, wrapping_emit, own):
        with pytest.raises(OutputTooLargeError) as raised:
            await chain([Acting(act)], RecordingScope(), Play().engine)(engine_call(), full)
        assert raised.value is error


async def test_who_does_not_listen_costs_nothing() -> None:
    heard: list[Emit] = []

    async def engine(call: EngineCall, emit: Emit) -> EngineResult:
        heard.append(emit)
        return await Play().engine(call, emit)

    async def deaf(call: EngineCall, emit: Emit, proceed: Proceed) -> EngineResult:
        return await proceed(call, emit)

    play = Play()
    await play.run([Acting(deaf)] * 3, engine_call(), engine)
    assert heard == [play.emit]


async def cancelled(act: Act) -> BaseException | None:
    """Cancel a call in the middle of the engine; return what became of it."""
    hangs = asyncio.Event()

    async def engine(call: EngineCall, emit: Emit) -> EngineResult:
        hangs.set()
        return await Play().engine(call, emit)

    play = Play()
    task = asyncio.create_task(play.run([Acting(act)] * 2, engine_call(said(hang={})), engine))
    await hangs.wait()
    task.cancel()
    (outcome,) = await asyncio.gather(task, return_exceptions=True)
    return outcome if isinstance(outcome, BaseException) else None


async def timing(call: EngineCall, emit: Emit, proceed: Proceed) -> EngineResult:
    async with asyncio.timeout(60):
        return await proceed(call, emit)


async def wrapping_cancel(call: EngineCall, emit: Emit, proceed: Proceed) -> EngineResult:
    try:
        return await proceed(call, emit)
    except asyncio.CancelledError as error:
        raise RuntimeError from error


@pytest.mark.parametrize("act", [transparent, grouping, timing, wrapping_cancel])
async def test_cancellation_passes(act: Act) -> None:
    with capture_logs() as lines:
        assert isinstance(await cancelled(act), asyncio.CancelledError)
    assert lines == []


async def test_cancellation_in_the_middlewares_own_wait_passes() -> None:
    waits = asyncio.Event()

    async def act(call: EngineCall, emit: Emit, proceed: Proceed) -> EngineResult:
        waits.set()
        await asyncio.Event().wait()
        raise AssertionError

    task = asyncio.create_task(Play().run(Acting(act), engine_call()))
    await waits.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_timeout_of_the_middlewares_own_is_its_failure() -> None:
    async def act(call: EngineCall, emit: Emit, proceed: Proceed) -> EngineResult:
        async with asyncio.timeout(0):
            return await proceed(call, emit)

    with pytest.raises(MiddlewareFailedError) as raised:
        await Play().run(Acting(act), engine_call(said(hang={})))
    assert isinstance(raised.value.__cause__, TimeoutError)


async def test_closing_a_call_that_nobody_awaits_is_quiet() -> None:
    waiting = Play().run(Acting(transparent), engine_call(said(hang={})))
    waiting.send(None)
    with capture_logs() as lines:
        waiting.close()
    assert lines == []

"""Middleware around an engine, and who is to blame when something is raised there.

What the engine raises, or the runtime, passes every middleware untouched, also where one wraps it in an error of its
own. What a middleware raises itself is a defect of that middleware and becomes MiddlewareFailedError, with the
traceback in the log; so does what its `emit` raises, which the engine calls and might take for a failure of its own.
"""

import asyncio
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

from turnwire_server.domain.errors import MiddlewareFailedError
from turnwire_server.engines.base import Emit, EngineCall, EngineChunk, EngineResult
from turnwire_server.middleware.base import Middleware, Proceed, Scope
from turnwire_server.telemetry.logs import logger

# How much of what others raised is remembered for one engine call: the newest. A middleware that repeats a call more
# often and then raises an older one again is taken for its origin.
_RAISED_MAX = 16

log = logger()


def chain(middleware: Sequence[Middleware], scope: Scope, engine: Proceed) -> Proceed:
    """Return the engine with the middleware around it, the first one outermost.

    Errors: MiddlewareFailedError for a crash of a middleware; everything else that is raised inside passes as it is. A
    middleware that swallows its cancellation is not stopped here.
    """
    proceed = engine
    for each in reversed(middleware):
        proceed = _Link(each, scope, proceed)
    return proceed


@dataclass(frozen=True, slots=True)
class _Link:
    """One middleware around what is inside it."""

    middleware: Middleware
    scope: Scope
    inner: Proceed

    async def __call__(self, call: EngineCall, emit: Emit) -> EngineResult:
        outcome = await _Passage(self, emit).make(call)
        if isinstance(outcome, EngineResult):
            return outcome
        raise outcome


class _Passage:
    """One engine call on its way through one middleware."""

    def __init__(self, link: _Link, emit: Emit) -> None:
        self._link = link
        self._outer_emit = emit
        self._raised: deque[BaseException] = deque(maxlen=_RAISED_MAX)  # by others: the engine, the runtime
        self._crash: MiddlewareFailedError | None = None  # of the middleware's emit

    async def make(self, call: EngineCall) -> EngineResult | BaseException:
        """Return, not raise, what has to be raised, so that it gets no context that is not its own."""
        middleware = self._link.middleware
        try:
            result = await middleware.call(call, self._emit, self._link.scope, self._proceed)
        except GeneratorExit:
            raise
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is returned
            return self._origin(error) or self._failed(error)
        if self._crash:  # and the engine did not care
            return self._crash
        if not isinstance(cast("object", result), EngineResult):
            return self._failed(TypeError(f"call() returned {type(result).__name__}, not EngineResult"))
        return result

    async def _emit(self, chunk: EngineChunk) -> None:
        try:
            await self._outer_emit(chunk)
        except BaseException as error:
            self._raised.append(error)
            raise

    async def _proceed(self, call: EngineCall, emit: Emit) -> EngineResult:
        try:
            return await self._link.inner(call, self._watched(emit))
        except BaseException as error:
            raised = self._crash if self._crash and not _is_cancellation(error) else error
            self._raised.append(raised)
            if raised is not error:
                raise raised from raised.__cause__
            raise

    def _watched(self, emit: Emit) -> Emit:
        """Return the emit of the middleware for what is inside; once it crashed, it stays so."""
        if emit == self._emit:
            return self._outer_emit  # the middleware does not listen: not a step more per chunk

        async def watched(chunk: EngineChunk) -> None:
            if self._crash:
                raise self._crash
            try:
                await emit(chunk)
            except GeneratorExit:
                raise
            except BaseException as error:
                origin = self._origin(error)
                if origin is error:
                    raise
                if origin is None:
                    origin = self._crash = self._failed(error)
                raise origin from origin.__cause__

        return watched

    def _origin(self, error: BaseException) -> BaseException | None:
        """Return what somebody else raised and this is, or was made of; None for what the middleware did itself."""
        if isinstance(error, MiddlewareFailedError) or _is_cancellation(error):
            return error
        for each in _sources(error):
            # A CancelledError is also what the TimeoutError of the middleware's own timeout is made of.
            is_telling = each is error or not isinstance(each, asyncio.CancelledError) or _is_cancellation(each)
            if is_telling and any(each is raised for raised in self._raised):
                return each
        return None

    def _failed(self, error: BaseException) -> MiddlewareFailedError:
        name = self._link.middleware.name
        log.error("middleware crashed", middleware=name, exc_info=error)
        failure = MiddlewareFailedError(middleware=name)
        failure.__cause__ = error
        return failure


def _is_cancellation(error: BaseException) -> bool:
    """Whether it is a CancelledError because the task is cancelled, and not one that somebody raised for no reason."""
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0


def _sources(error: BaseException) -> Iterator[BaseException]:
    """Yield the error, then what it was made of: its causes, and the members of groups. Each once, so it ends."""
    seen: set[int] = set()
    left = [error]
    while left:
        each = left.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        if isinstance(each, BaseExceptionGroup):
            left.extend(cast("BaseExceptionGroup[BaseException]", each).exceptions)
        if each.__cause__ is not None:
            left.append(each.__cause__)

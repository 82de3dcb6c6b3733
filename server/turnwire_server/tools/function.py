"""Tools of the server as typed Python functions.

    from turnwire_server.tools.function import ToolFailure, tool

    @tool(is_idempotent=True)
    async def get_weather(city: str, days: Annotated[int, Field(ge=1, le=7, description="how many")] = 1) -> Weather:
        \"\"\"Say what the weather will be.\"\"\"

The model is offered the name, the docstring and the JSON Schema of the parameters. What it asks for is validated before
the function is called; what the function returns may be anything that pydantic turns into JSON. A function that fails
raises ToolFailure.
"""

import asyncio
import functools
import inspect
import re
import threading
import typing
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from contextvars import copy_context
from typing import Any, Generic, ParamSpec, TypeVar, cast, overload

import pydantic_core
from pydantic import PydanticUserError, TypeAdapter, ValidationError
from pydantic.json_schema import GenerateJsonSchema

from turnwire_server.domain.tool import Tool, ToolPlacement
from turnwire_server.tools.base import Invocation, ToolDefinition, ToolFailure

__all__ = ["FunctionTool", "Invocation", "ToolFailure", "tool"]

# How many calls of one function that is not async may be under way: each has a thread. Further ones wait, and their
# timeout runs. A thread that hangs keeps its place, since nothing can stop it: so a function that hangs takes no other
# function's place.
THREADS_MAX = 32

# Contract: Tool.name, Tool.description.
NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
DESCRIPTION_BYTES_MAX = 16_384

P = ParamSpec("P")
R = TypeVar("R")


class FunctionTool(Generic[P, R]):
    """A function that is a ServerTool. Called directly, it is the function that it was."""

    def __init__(self, function: Callable[P, R], definition: ToolDefinition, parameters: "_Parameters") -> None:
        functools.update_wrapper(self, function)
        self._function = function
        self._definition = definition
        self._parameters = parameters
        self._places = asyncio.Semaphore(THREADS_MAX)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function."""
        return self._function(*args, **kwargs)

    @property
    def definition(self) -> ToolDefinition:
        """See ServerTool."""
        return self._definition

    async def run(self, invocation: Invocation) -> str:
        """See ServerTool. A function that is not async cannot be stopped: its thread is abandoned."""
        function = cast("Callable[..., object]", self._function)
        call = functools.partial(function, **self._parameters.read(invocation))
        if inspect.iscoroutinefunction(function):
            return _to_json(await cast("Awaitable[object]", call()))
        await self._places.acquire()
        return await _in_thread(lambda: _to_json(call()), f"tool-{self._definition.tool.name}", self._places.release)


@overload
def tool(function: Callable[P, R], /) -> FunctionTool[P, R]: ...


@overload
def tool(
    *,
    name: str = "",
    description: str = "",
    is_idempotent: bool = False,
    approval_required: bool = False,
    timeout_seconds: float | None = None,
) -> Callable[[Callable[P, R]], FunctionTool[P, R]]: ...


def tool(
    function: Callable[P, R] | None = None,
    /,
    *,
    name: str = "",
    description: str = "",
    is_idempotent: bool = False,
    approval_required: bool = False,
    timeout_seconds: float | None = None,
) -> FunctionTool[P, R] | Callable[[Callable[P, R]], FunctionTool[P, R]]:
    """Make a tool of a function, which may be async.

    `name` and `description` are the function's own and its docstring, unless they are said. A parameter that is
    annotated with Invocation is given the invocation, and is not offered to the model. `is_idempotent`: executing it
    twice does what executing it once does; a function that is not async is not repeated after a timeout all the same,
    since its thread may go on. `approval_required`: a person has to approve each call.
    `timeout_seconds` goes before that of the profile.

    Errors: TypeError and ValueError when no tool can be made of the function.
    """

    def decorate(function: Callable[P, R]) -> FunctionTool[P, R]:
        own = name or getattr(function, "__name__", "")
        if not NAME.fullmatch(own):
            msg = f"a tool cannot be called {own!r}: a name has 1 to 64 of A-Z a-z 0-9 _ -; say @tool(name=...)"
            raise ValueError(msg)
        said = description or inspect.getdoc(function) or ""
        if len(said.encode()) > DESCRIPTION_BYTES_MAX:
            msg = f"the description of the tool {own} has more than {DESCRIPTION_BYTES_MAX} bytes"
            raise ValueError(msg)
        if timeout_seconds is not None and timeout_seconds <= 0:
            msg = f"the timeout of the tool {own} has to be more than 0 seconds"
            raise ValueError(msg)
        parameters = _Parameters(function, own)
        offered = Tool(own, said, parameters.schema, ToolPlacement.SERVER, approval_required)
        can_stop = inspect.iscoroutinefunction(function)
        return FunctionTool(function, ToolDefinition(offered, is_idempotent, timeout_seconds, can_stop), parameters)

    return decorate if function is None else decorate(function)


class _Parameters:
    """The parameters of a function: their schema, and how arguments become them."""

    def __init__(self, function: Callable[..., object], name: str) -> None:
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise _refusal(name, "it is a generator: return the whole result instead")
        try:
            hints = typing.get_type_hints(function, include_extras=True)
        except (NameError, TypeError) as error:
            raise _refusal(name, f"its annotations cannot be read: {error}") from error
        self.invocation_name = ""
        offered: list[inspect.Parameter] = []
        for parameter in inspect.signature(function).parameters.values():
            _check(name, parameter, hints)
            if hints[parameter.name] in (Invocation, Invocation | None):
                self.invocation_name = parameter.name
            else:
                kind = inspect.Parameter.KEYWORD_ONLY
                offered.append(parameter.replace(kind=kind, annotation=hints[parameter.name]))

        def collect(**values: object) -> Mapping[str, object]:
            return values

        # pydantic goes by these two, and so knows the parameters as it knows those of any function.
        collect.__signature__ = inspect.Signature(offered)  # type: ignore[attr-defined]  # pyright: ignore[reportFunctionMemberAccess]
        collect.__annotations__ = {parameter.name: parameter.annotation for parameter in offered}
        try:
            self._adapter: TypeAdapter[Mapping[str, object]] = TypeAdapter(cast("Any", collect))
            schema = self._adapter.json_schema(schema_generator=_WithoutTitles)
        except PydanticUserError as error:
            raise _refusal(name, f"its parameters have no JSON Schema: {error.message}") from error
        self.schema = pydantic_core.to_json(schema).decode()

    def read(self, invocation: Invocation) -> dict[str, object]:
        """Return the arguments of a call by name. Errors: ToolFailure when they break a rule that no schema says."""
        try:
            values = self._adapter.validate_json(invocation.call.args or "{}")
        except ValidationError as error:
            each = error.errors(include_url=False, include_context=False, include_input=False)
            said = "; ".join(f"{'.'.join(map(str, one['loc'])) or 'arguments'}: {one['msg']}" for one in each)
            raise ToolFailure(said, "invalid_args") from None
        return {**values, **({self.invocation_name: invocation} if self.invocation_name else {})}


class _WithoutTitles(GenerateJsonSchema):
    """Leaves out the titles that pydantic makes of names: they tell the model nothing."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def _check(name: str, parameter: inspect.Parameter, hints: Mapping[str, object]) -> None:
    if parameter.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD):
        raise _refusal(name, f"a model cannot be told what {parameter} takes: name each parameter")
    if parameter.kind is inspect.Parameter.POSITIONAL_ONLY:
        raise _refusal(name, f"{parameter.name} can only be given by position, and arguments of a call have names")
    if parameter.name not in hints:
        raise _refusal(name, f"{parameter.name} has no type annotation")


def _refusal(name: str, reason: str) -> TypeError:
    return TypeError(f"no tool can be made of {name}: {reason}")


def _to_json(result: object) -> str:
    return pydantic_core.to_json(result, inf_nan_mode="null").decode()


async def _in_thread(call: Callable[[], str], name: str, leave: Callable[[], None]) -> str:
    """Run in a thread that never keeps the process from ending; cancelled, leave it alone.

    `leave` is called when the thread has ended, whoever still waits for it.
    """
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[Callable[[], str]] = loop.create_future()

    def settle(outcome: Callable[[], str]) -> None:
        leave()
        if not ended.done():
            ended.set_result(outcome)

    def work() -> None:
        try:
            outcome = functools.partial(str, call())
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is raised where the result is awaited
            outcome = functools.partial(_raise, error)
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settle, outcome)

    context = copy_context()
    try:
        threading.Thread(target=lambda: context.run(work), name=name, daemon=True).start()
    except RuntimeError:  # the machine has no more threads
        leave()
        raise
    return (await ended)()


def _raise(error: BaseException) -> str:
    raise error

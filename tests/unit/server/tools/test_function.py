"""Tools that are Python functions."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import date
from typing import Annotated, Any

import pytest
from pydantic import AfterValidator, BaseModel, Field

from turnwire_server.domain.tool import ToolCall, ToolPlacement
from turnwire_server.tools.function import THREADS_MAX, FunctionTool, Invocation, ToolFailure, tool


def invocation(args: str = "") -> Invocation:
    return Invocation("session", "inference", ToolCall("call", "tool", args))


def schema(made: FunctionTool[..., Any]) -> dict[str, Any]:
    return dict(json.loads(made.definition.tool.input_schema))


class Place(BaseModel):
    city: str
    since: date | None = None


@dataclass
class Weather:
    place: Place
    degrees: float


def even(number: int) -> int:
    if number % 2:
        msg = "has to be even"
        raise ValueError(msg)
    return number


@tool
def describe(place: Place, degrees: Annotated[float, Field(ge=-90, description="in Celsius")] = 20) -> Weather:
    """Say what it is like.

    At some place.
    """
    return Weather(place, degrees)


@tool(name="look-up", description="finds things", is_idempotent=True, approval_required=True, timeout_seconds=2.5)
async def look_up(key: str, invocation: Invocation, schema: int = 1) -> list[object]:
    """Something else."""
    return [key, schema, invocation.session_id, invocation.call.id]


def test_a_definition_is_what_the_function_says() -> None:
    offered = describe.definition.tool
    assert (offered.name, offered.description) == ("describe", "Say what it is like.\n\nAt some place.")
    assert (offered.placement, offered.approval_required) == (ToolPlacement.SERVER, False)
    assert (describe.definition.is_idempotent, describe.definition.timeout_seconds) == (False, None)
    said = schema(describe)
    assert said["properties"]["degrees"] == {
        "default": 20,
        "description": "in Celsius",
        "minimum": -90,
        "type": "number",
    }
    assert said["properties"]["place"] == {"$ref": "#/$defs/Place"}
    assert (said["required"], said["additionalProperties"]) == (["place"], False)


def test_a_definition_is_what_the_decorator_says() -> None:
    definition = look_up.definition
    assert (definition.tool.name, definition.tool.description) == ("look-up", "finds things")
    assert definition.tool.approval_required
    assert (definition.is_idempotent, definition.timeout_seconds) == (True, 2.5)
    assert set(schema(look_up)["properties"]) == {"key", "schema"}


async def test_a_function_gets_what_the_model_said_as_what_it_takes() -> None:
    result = await describe.run(invocation('{"place": {"city": "Zürich", "since": "2020-02-29"}}'))
    assert json.loads(result) == {"place": {"city": "Zürich", "since": "2020-02-29"}, "degrees": 20}
    assert json.loads(await look_up.run(invocation('{"key": "k"}'))) == ["k", 1, "session", "call"]


async def test_a_function_is_still_one() -> None:
    assert describe(Place(city="Bern"), degrees=1) == Weather(Place(city="Bern"), 1)
    assert await look_up("k", invocation()) == ["k", 1, "session", "call"]
    assert describe.__name__ == "describe"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("text", '"text"'),
        (None, "null"),
        (float("nan"), "null"),
        ({"a": {1}}, '{"a":[1]}'),
        (date(2020, 2, 29), '"2020-02-29"'),
        (10**30, "1" + "0" * 30),
    ],
)
async def test_a_result_is_json(value: object, text: str) -> None:
    @tool
    def constant() -> object:
        return value

    assert await constant.run(invocation()) == text


async def test_a_rule_that_no_schema_says_is_kept() -> None:
    @tool
    def halve(number: Annotated[int, AfterValidator(even)]) -> int:
        return number // 2

    assert await halve.run(invocation('{"number": 4}')) == "2"
    with pytest.raises(ToolFailure, match="number: Value error, has to be even") as failed:
        await halve.run(invocation('{"number": 5}'))
    assert failed.value.code == "invalid_args"


@pytest.mark.parametrize(
    "raised", [ToolFailure("no", "full", may_repeat=True), KeyError("k"), StopIteration(), SystemExit(3)]
)
async def test_what_a_function_raises_passes(raised: BaseException) -> None:
    @tool
    def fail() -> None:
        raise raised

    @tool
    async def fail_async() -> None:
        raise raised

    for made in (fail, fail_async):
        with pytest.raises((type(raised), RuntimeError)) as failed:  # Python turns StopIteration into RuntimeError
            await made.run(invocation())
        assert raised in (failed.value, failed.value.__cause__)


def positional_only(a: int, /) -> int:
    return a


def rest(*names: str) -> None: ...


def more(**names: str) -> None: ...


def unannotated(a) -> None: ...  # type: ignore[no-untyped-def]


def unknown(a: "Nowhere") -> None: ...  # type: ignore[name-defined]  # noqa: F821


def untellable(a: threading.Lock) -> None: ...  # type: ignore[valid-type]


def generator() -> Iterator[int]:
    yield 1


async def async_generator() -> AsyncIterator[int]:
    yield 1


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (positional_only, "a can only be given by position"),
        (rest, r"a model cannot be told what \*names: str takes"),
        (more, r"a model cannot be told what \*\*names: str takes"),
        (unannotated, "a has no type annotation"),
        (unknown, "its annotations cannot be read: name 'Nowhere' is not defined"),
        (untellable, "its parameters have no JSON Schema"),
        (generator, "it is a generator"),
        (async_generator, "it is a generator"),
    ],
)
def test_what_no_tool_can_be_made_of_is_refused_at_once(function: Any, said: str) -> None:
    with pytest.raises(TypeError, match=f"no tool can be made of {function.__name__}: {said}"):
        tool(function)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"name": "not a name"}, "a tool cannot be called 'not a name'"),
        ({"name": "x" * 65}, "a name has 1 to 64"),
        ({"description": "x" * 16_385}, "more than 16384 bytes"),
        ({"timeout_seconds": 0.0}, "more than 0 seconds"),
    ],
)
def test_what_the_contract_does_not_take_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        tool(**options)(look_up)


async def test_cancelling_an_async_function_is_asyncio_cancellation() -> None:
    began, ended = asyncio.Event(), asyncio.Event()

    @tool
    async def wait() -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    task = asyncio.create_task(wait.run(invocation()))
    await began.wait()
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()
    assert ended.is_set()


async def test_a_function_that_is_not_async_keeps_nobody_and_is_left_alone_when_it_is_cancelled() -> None:
    began, release, ended = asyncio.Event(), threading.Event(), threading.Event()
    loop, threads = asyncio.get_running_loop(), list[threading.Thread]()

    @tool
    def block() -> None:
        threads.append(threading.current_thread())
        loop.call_soon_threadsafe(began.set)
        release.wait(60)
        ended.set()

    task = asyncio.create_task(block.run(invocation()))
    await began.wait()
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()
    assert not ended.is_set()
    assert [(thread.daemon, thread.name) for thread in threads] == [(True, "tool-block")]
    release.set()
    await asyncio.to_thread(threads[0].join, 60)
    assert ended.is_set()


async def test_threads_of_one_function_are_bounded_and_a_place_is_free_when_its_thread_has_ended() -> None:
    release, running, most = threading.Semaphore(0), 0, 0
    lock = threading.Lock()

    @tool
    def block() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        release.acquire(timeout=60)
        with lock:
            running -= 1

    calls = [asyncio.create_task(block.run(invocation())) for _ in range(THREADS_MAX)]
    waiting = [asyncio.create_task(block.run(invocation())) for _ in range(2)]
    await asyncio.sleep(0)
    for call in calls[:5]:  # abandoned: their threads keep their places
        call.cancel()
    waiting[0].cancel()
    await asyncio.wait({*calls[:5], waiting[0]})
    release.release(THREADS_MAX + 1)
    assert await asyncio.gather(*calls[5:], waiting[1]) == ["null"] * (THREADS_MAX - 4)
    assert most == THREADS_MAX

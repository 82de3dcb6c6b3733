"""Each violation that is planted into the reference server makes a case fail that cites what it breaks.

The server keeps the contract as long as nothing is planted: all cases pass through the proxy. Trials run some at a
time, beside the tests that wait for them.
"""

import asyncio
import threading
from collections.abc import Coroutine, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from typing import Any, TypeVar

import pytest
from google.protobuf import json_format

from support.arrangements import ARRANGEMENTS
from support.server import ServerProcess
from turnwire.testing.v1.conformance_pb2 import Case
from turnwire_conformance.case import Run, load_own_runs
from violations.exchange import Plant
from violations.kinds import changes
from violations.registry import all_violations
from violations.streams import rewrites
from violations.trial import Court, DefectiveCaseError, DefectivePlantError
from violations.violation import Violation, violation

TRIALS_AT_A_TIME = 8

# A test may wait for those before it, and all run on a machine that has other work.
pytestmark = pytest.mark.timeout(300)

T = TypeVar("T")


class Loop:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="trials")
        self._places = asyncio.Semaphore(TRIALS_AT_A_TIME)

    def __enter__(self) -> "Loop":
        self._thread.start()
        return self

    def begin(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Begin a piece of work as soon as there is a place for it."""

        async def placed() -> T:
            async with self._places:
                return await work

        return asyncio.run_coroutine_threadsafe(placed(), self._loop)

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._cancel(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _cancel(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture(scope="module")
def court() -> Iterator[Court]:
    """Real servers, one in each arrangement."""
    with ExitStack() as stack:
        servers = {
            name: stack.enter_context(ServerProcess(("--store", "memory", *arguments))).address
            for name, arguments in ARRANGEMENTS.items()
        }
        yield Court(servers, load_own_runs())


@pytest.fixture(scope="module")
def loop() -> Iterator[Loop]:
    with Loop() as loop:
        yield loop


@pytest.fixture(scope="module")
def trials(request: pytest.FixtureRequest, court: Court, loop: Loop) -> dict[str, Future[list[str]]]:
    """The trials of all violations that tests were asked for."""
    asked: Sequence[Any] = [getattr(item, "callspec", None) for item in request.session.items]
    chosen = [spec.params["violation"] for spec in asked if spec and "violation" in spec.params]
    return {each.name: loop.begin(court.overlooked(each)) for each in dict.fromkeys(chosen)}


@pytest.mark.parametrize("arrangement", ARRANGEMENTS, ids=lambda name: name or "default")
def test_the_reference_server_keeps_the_contract(court: Court, loop: Loop, arrangement: str) -> None:
    outcomes = loop.begin(court.keep(arrangement)).result()
    assert [f"{each.topic}/{each.name}: {each.detail}" for each in outcomes if each.status == "failed"] == []


@pytest.mark.parametrize("violation", all_violations(), ids=str)
def test_a_case_finds_it(violation: Violation, trials: dict[str, Future[list[str]]]) -> None:
    assert "\n".join(trials[violation.name].result()) == ""


@pytest.mark.parametrize(
    ("breaks", "plant"),
    [
        (("SessionService.GetSession", "Returns a session."), changes("GetSession", lambda _, found: found.nothing)),
        (("InferenceService.SubscribeEvents", "The first response comes at once"), rewrites(lambda _, found: found[0])),
    ],
    ids=["call", "stream"],
)
def test_a_plant_that_fails_itself_breaks_nothing(
    court: Court, loop: Loop, breaks: tuple[str, str], plant: Plant
) -> None:
    with pytest.raises(DefectivePlantError):
        loop.begin(court.overlooked(violation("fails-itself", breaks, plant))).result()


# --- what makes a case fail, and proves nothing ------------------------------------------------------

WAIT_ELEMENT = "turnwire.v1.InferenceService.Wait"
WAITS = (WAIT_ELEMENT, "Waits until an inference has ended")
PROMISE = ("turnwire/v1/event.proto", "Ordered")


def run_that(breaks: tuple[str, str], *steps: dict[str, Any]) -> Run:
    """Return a case that cites a statement."""
    case = {"name": "made-up", "proves": [{"element": breaks[0], "says": breaks[1]}]}
    read = json_format.ParseDict({**case, "steps": steps}, Case())
    return Run("made_up", read.name, tuple(read.proves), "", {}, tuple(read.steps))


def tried(court: Court, loop: Loop, run: Run, breaks: tuple[str, str], *plants: Plant) -> list[str]:
    """Try a violation with that case alone; return what it overlooks."""
    alone = Court(court.servers, [run])
    return loop.begin(alone.overlooked(violation("made-up", breaks, *plants))).result()


def test_a_case_that_is_wrong_finds_nothing(court: Court, loop: Loop) -> None:
    run = run_that(WAITS, {"call": {"rpc": "InferenceService.Wait", "request": {"inference_id": "$nobody"}}})
    with pytest.raises(DefectiveCaseError, match="no variable"):
        tried(court, loop, run, WAITS)


def test_a_case_that_takes_long_and_fails_without_the_violation_finds_nothing(
    court: Court, loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("violations.trial.PATIENCE_SECONDS", 0.0)
    run = run_that(WAITS, {"call": {"rpc": "InferenceService.Wait", "request": {"inference_id": "gone"}}})
    assert "none fails because of that" in tried(court, loop, run, WAITS)[0]


@pytest.mark.parametrize(("breaks", "is_found"), [(WAITS, False), (PROMISE, True)], ids=["steps", "promise"])
def test_what_holds_after_every_case_proves_the_promises_alone(
    court: Court, loop: Loop, breaks: tuple[str, str], is_found: bool
) -> None:
    started: dict[str, Any] = {"new_session": {}, "profile": "scripted", "input": [{"user": {"text": "hello"}}]}
    run = run_that(breaks, {"call": {"rpc": "InferenceService.StartInference", "request": started}})
    plant = changes("ListEvents", lambda _, response: response.ClearField("events"))
    assert (tried(court, loop, run, breaks, plant) == []) == is_found

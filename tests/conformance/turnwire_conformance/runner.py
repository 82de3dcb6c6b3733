"""All cases against one server."""

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import grpc

from turnwire_conformance.case import Run
from turnwire_conformance.epilogue import check_sessions, clear_sessions
from turnwire_conformance.limits import Limits
from turnwire_conformance.readiness import check_ready
from turnwire_conformance.report import Outcome, Place
from turnwire_conformance.rpcs import OPTIONS
from turnwire_conformance.stage import Stage
from turnwire_conformance.steps import take_steps
from turnwire_conformance.values import CaseError, Written

AT_A_TIME = 8

CONNECT_SECONDS = 10.0


class UnreachableError(Exception):
    """Nobody listens at the address."""


class EpilogueError(AssertionError):
    """What has to hold after the steps of a case does not."""


@dataclass(frozen=True, slots=True)
class Target:
    """The server: its address, the profile whose engine is the scripted one, and the arrangement it is set up in."""

    address: str
    profile: str = "scripted"
    arrangement: str = ""
    limits: Limits = Limits()


async def run_all(
    target: Target, runs: Iterable[Run], tell: Callable[[Outcome], object], *, at_a_time: int = AT_A_TIME
) -> Sequence[Outcome]:
    """Run cases, some at a time; return their outcomes in the order of the cases. `tell` gets each when it is there.

    In an arrangement they run one by one: it has little of something, and one case would take it from another. Once
    nobody listens any more, all that have not begun fail.

    Errors: UnreachableError, if nobody listens at the beginning; NotReadyError, if the profile is no scripted one.
    """
    if not __debug__:
        msg = "conformance checks with assertions, which `python -O` leaves out"
        raise RuntimeError(msg)
    places = asyncio.Semaphore(1 if target.arrangement else at_a_time)
    gone = ""

    async def run_one(run: Run) -> Outcome:
        nonlocal gone
        async with places:
            outcome = _failed(run, "connection", gone) if gone else await run_case(target, run)
        if outcome.failed_in == "connection":
            gone = outcome.detail
        tell(outcome)
        return outcome

    async with _connected(target.address) as channel:
        await check_ready(channel, target.profile, target.limits)
    chosen = list(runs)
    async with asyncio.TaskGroup() as group:
        tasks = {run.full_name: group.create_task(run_one(run)) for run in sorted(chosen, key=_least, reverse=True)}
    return [tasks[run.full_name].result() for run in chosen]


def _least(run: Run) -> float:
    """Return how long a case takes at least: those that take long begin first, and the others run beside them."""
    return sum(step.call.took_min.ToTimedelta().total_seconds() for step in run.steps)


async def run_case(target: Target, run: Run) -> Outcome:
    """Run one case, on a connection of its own."""
    if run.arrangement != target.arrangement:
        return Outcome(run.name, run.topic, "skipped", _needs(run, target), 0.0, run.cites)
    began = time.monotonic()
    try:
        async with asyncio.timeout(target.limits.case):
            await _run(target, run)
    except Exception as error:  # noqa: BLE001 - whatever a server does, the other cases go on and are told
        place, detail = _why(error, target)
        return _failed(run, place, detail, time.monotonic() - began)
    return Outcome(run.name, run.topic, "passed", "", time.monotonic() - began, run.cites)


def _failed(run: Run, place: Place, detail: str, seconds: float = 0.0) -> Outcome:
    return Outcome(run.name, run.topic, "failed", detail, seconds, run.cites, place)


def _why(error: Exception, target: Target) -> tuple[Place, str]:
    match error:
        case EpilogueError():
            return "epilogue", str(error)
        case AssertionError():
            return "steps", str(error)
        case TimeoutError():
            return "time", f"it is not over after {target.limits.case:g} s"
        case UnreachableError():
            return "connection", f"{error} any more"
        case CaseError():
            return "case", f"the case itself is wrong: {error}"
        case _:
            return "runner", f"the runner failed: {error!r}"


def _needs(run: Run, target: Target) -> str:
    if run.arrangement:
        return f"needs a server in the arrangement `{run.arrangement}`"
    return f"is for a server as it is by default, not in the arrangement `{target.arrangement}`"


async def _run(target: Target, run: Run) -> None:
    row = {name: Written(value) for name, value in run.row.items()}
    variables = {**row, "profile": target.profile, "unique": f"case-{uuid.uuid4()}"}
    async with _connected(target.address) as channel:
        stage = Stage(target.address, channel, variables, target.limits)
        try:
            await take_steps(stage, run.steps)
            await _check_sessions(stage)
        finally:
            await stage.close()
            await clear_sessions(stage)


async def _check_sessions(stage: Stage) -> None:
    try:
        await check_sessions(stage)
    except AssertionError as error:
        raise EpilogueError(str(error)) from None


@asynccontextmanager
async def _connected(address: str) -> AsyncGenerator[grpc.aio.Channel]:
    """Connect. Errors: UnreachableError."""
    async with grpc.aio.insecure_channel(address, options=OPTIONS) as channel:
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await channel.channel_ready()
        except TimeoutError:
            msg = f"nobody listens at {address}"
            raise UnreachableError(msg) from None
        yield channel

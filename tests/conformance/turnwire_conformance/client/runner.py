"""Runs cases: a server each, an adapter that is told what to do, and a judgement of both."""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import NoReturn

from turnwire.testing.v1.client_conformance_pb2 import ClientClose, ClientCommand, ClientConnect, ClientSeen
from turnwire_conformance.client.adapter import Adapter, AdapterError
from turnwire_conformance.client.case_file import Case
from turnwire_conformance.client.judge import answer_complaints, seen_complaints
from turnwire_conformance.client.server import ReferenceServer
from turnwire_conformance.report import Outcome, Status

ANSWER_SECONDS_MAX = 20.0


# What every SDK has to be able to do; the rest of the commands it MAY lack.
NEEDED = frozenset({"connect", "start", "events", "result", "close"})


class Unsupported(Exception):  # noqa: N818 - nothing went wrong
    """The SDK has nothing for what the case tells it, and MAY lack it."""


async def run_cases(
    cases: Sequence[Case],
    command: Sequence[str],
    *,
    jobs: int = 1,
    told: Callable[[Outcome], object] | None = None,
    answer_seconds_max: float = ANSWER_SECONDS_MAX,
) -> list[Outcome]:
    """Runs the cases with adapters that are started by `command`, `jobs` at a time, and returns what came of them.

    The outcomes are in the order of the cases; `told` is called with each as soon as it is there. What the SDK lacks
    and MAY lack is skipped. An answer may take `answer_seconds_max` where the case does not say how long.
    """
    outcomes: dict[str, Outcome] = {}
    waiting = list(reversed(cases))

    async def work() -> None:
        adapter = Adapter(command)
        try:
            while waiting:
                case = waiting.pop()
                outcomes[case.full_name] = outcome = await run_case(case, adapter, answer_seconds_max)
                if told is not None:
                    told(outcome)
        finally:
            await adapter.close()

    await asyncio.gather(*(work() for _ in range(min(jobs, len(cases)))))
    return [outcomes[case.full_name] for case in cases]


async def run_case(case: Case, adapter: Adapter, answer_seconds_max: float = ANSWER_SECONDS_MAX) -> Outcome:
    """Runs one case with an adapter, which is a fresh one afterwards if it did not answer.

    A case that the suite itself cannot run has failed: the outcomes of the others are not lost for it.
    """
    began = time.monotonic()
    status: Status
    try:
        complaints = await _run(case, adapter, answer_seconds_max)
        status = "failed" if complaints else "passed"
    except Unsupported as lacking:
        status, complaints = "skipped", [str(lacking)]
    except Exception as error:  # noqa: BLE001 - whatever it is, it is about this case alone
        await adapter.kill()
        status, complaints = "failed", [f"the suite failed: {error!r}"]
    seconds = time.monotonic() - began
    return Outcome(case.told.name, case.topic, status, "\n".join(complaints), seconds, case.cites)


async def _run(case: Case, adapter: Adapter, answer_seconds_max: float) -> list[str]:
    server = ReferenceServer(case.told)
    try:
        return await _tell(case, adapter, server, await server.start(), answer_seconds_max)
    finally:
        await server.stop()


async def _tell(
    case: Case, adapter: Adapter, server: ReferenceServer, target: str, answer_seconds_max: float
) -> list[str]:
    connect = ClientConnect()
    connect.CopyFrom(case.told.connect)
    connect.target = target
    complaints: list[str] = []
    try:
        await _must_work(adapter, ClientCommand(connect=connect), answer_seconds_max)
        for number, step in enumerate(case.told.steps, start=1):
            expected = step.expected
            limit = expected.at_most.ToTimedelta().total_seconds() or answer_seconds_max
            began = time.monotonic()
            answer = await adapter.tell(step.command, limit)
            seconds = time.monotonic() - began
            if answer.unsupported:
                await _must_work(adapter, ClientCommand(close=ClientClose()), answer_seconds_max)
                _refuse_lack(step.command, answer.unsupported)
            what = f"step {number}, {step.command.WhichOneof('command')}"
            found = answer_complaints(expected, answer, seconds, server.world.events)
            complaints += [f"{what}: {complaint}" for complaint in found]
        await asyncio.sleep(case.told.settle.ToTimedelta().total_seconds())
        await _must_work(adapter, ClientCommand(close=ClientClose()), answer_seconds_max)
    except AdapterError as error:
        complaints.append(str(error))
    except Unsupported:
        if not complaints:  # what was wrong before it is wrong all the same
            raise
    return [*complaints, *_seen(case.told.seen, server)]


async def _must_work(adapter: Adapter, command: ClientCommand, seconds_max: float) -> None:
    """Raises AdapterError when the adapter cannot do what every adapter can."""
    answer = await adapter.tell(command, seconds_max)
    if answer.unsupported:
        _refuse_lack(command, answer.unsupported)
    if answer.HasField("error"):
        await adapter.kill()
        raise AdapterError(f"{command.WhichOneof('command')} failed: {answer.error.message}")


def _refuse_lack(command: ClientCommand, why: str) -> NoReturn:
    """Raises AdapterError for what every SDK has to be able to do, else Unsupported."""
    what = command.WhichOneof("command") or "nothing"
    if what in NEEDED:
        raise AdapterError(f"{what} is what every SDK has to be able to do, and is unsupported: {why}")
    raise Unsupported(f"{what} is unsupported: {why}")


def _seen(expected: Sequence[ClientSeen], server: ReferenceServer) -> list[str]:
    return [complaint for seen in expected for complaint in seen_complaints(seen, server.calls_of(seen.rpc))]

"""Whatever a server does, each case has an outcome, and the suite goes on."""

import asyncio
from typing import Any

import grpc
import pytest

from support.made_up_server import made_up
from turnwire_conformance.case import Run, load_own_runs
from turnwire_conformance.limits import Limits
from turnwire_conformance.report import Outcome
from turnwire_conformance.runner import Target, run_all

LIMITS = Limits(1.0, again=0.5, finish=0.5, read=0.5, settle=0.5, call=1.0, case=3.0)


def some_runs() -> list[Run]:
    """Return a case of each topic; those that need more time than there is have it wrong, too."""
    return list({run.topic: run for run in load_own_runs() if not run.arrangement}.values())


async def outcomes_of(address: str) -> list[Outcome]:
    """Run them."""
    return list(await run_all(Target(address, limits=LIMITS), some_runs(), lambda _: None))


@pytest.mark.parametrize("answer", [b"\xff\xff\xff", b"", b"\x0a\x02\x08\x01"], ids=["garbage", "nothing", "something"])
async def test_a_server_that_answers_something_else_fails(answer: bytes) -> None:
    async def anything(_: str, __: bytes, ___: Any) -> bytes:
        return answer

    async with made_up(anything) as address:
        outcomes = await outcomes_of(address)
    assert {outcome.status for outcome in outcomes} == {"failed"}
    assert {outcome.failed_in for outcome in outcomes} <= {"steps", "epilogue", "time"}
    if answer == b"\xff\xff\xff":
        assert any("the response is no " in outcome.detail for outcome in outcomes)


async def test_details_that_are_none_are_told() -> None:
    async def refuse(_: str, __: bytes, context: Any) -> bytes:
        await context.abort(grpc.StatusCode.INTERNAL, "broken", (("grpc-status-details-bin", b"\xff\xff"),))
        raise AssertionError

    async with made_up(refuse) as address:
        outcomes = await outcomes_of(address)
    assert {outcome.status for outcome in outcomes} == {"failed"}
    assert any("grpc-status-details-bin of INTERNAL is no Status: ffff" in outcome.detail for outcome in outcomes)


async def test_a_server_that_goes_away_fails_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("turnwire_conformance.runner.CONNECT_SECONDS", 0.5)
    told: list[Outcome] = []
    has_begun, has_ended = asyncio.Event(), asyncio.Event()

    async def hang(_: str, __: bytes, ___: Any) -> bytes:
        has_begun.set()
        await asyncio.Event().wait()
        raise AssertionError

    async def serve() -> None:
        async with made_up(hang) as address:
            addresses.set_result(address)
            await has_begun.wait()
        has_ended.set()

    addresses: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(serve())
    outcomes = await run_all(Target(await addresses, limits=LIMITS), some_runs(), told.append)
    await serving
    assert len(outcomes) == len(told) == len(some_runs())
    assert {outcome.status for outcome in outcomes} == {"failed"}
    assert outcomes[-1].failed_in == "connection"
    assert "nobody listens at 127.0.0.1" in outcomes[-1].detail

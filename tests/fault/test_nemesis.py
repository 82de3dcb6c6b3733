"""What strikes leaves no excuse behind, and takes only what it does for one."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import grpc
import pytest

from fault.history import History
from fault.host import Host
from fault.link import Life, Link
from fault.nemesis import Conjurer
from fault.schedule import Nemesis, Strike
from fault.stage import Stage

Code = grpc.StatusCode


class FakeProxy:
    """Tells what was done to it."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.delay_seconds = 0.0

    def swallow(self) -> None:
        self.told.append("swallow")

    def cut(self, *, is_half_open: bool = False) -> None:
        self.told.append(f"cut {is_half_open}")

    def restore(self) -> None:
        self.told.append("restore")


class FakeSessions:
    """Answers to CreateSession with an error as often as told, and remembers the keys."""

    def __init__(self) -> None:
        self.failures: list[Code] = []
        self.keys: list[str] = []

    async def CreateSession(self, request: Any, timeout: float) -> None:
        assert timeout > 0
        self.keys.append(request.idempotency_key)
        if self.failures:
            raise grpc.aio.AioRpcError(self.failures.pop(), grpc.aio.Metadata(), grpc.aio.Metadata())


class Scene:
    """A conjurer in front of a server that is none."""

    def __init__(self, history: History) -> None:
        self.link = Link(history)
        self.proxy, self.sessions = FakeProxy(), FakeSessions()
        host = SimpleNamespace(
            server=object(), proxy=self.proxy, disk=None, provider=SimpleNamespace(proxy=self.proxy), clock=Path()
        )
        self.conjurer = Conjurer(cast("Host", host), Stage(2, self.link))
        stubs: Any = SimpleNamespace(session=self.sessions)
        self.life = Life(1, stubs, self.link.troubles, history)

    async def strike(self, nemesis: Nemesis, seconds: float = 0.02) -> None:
        await self.conjurer.strike(Strike(nemesis, 0.0, seconds, 0.5), self.life)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with History(tmp_path / "history.jsonl") as history:
        yield Scene(history)


async def test_a_strike_at_the_provider_that_is_cut_short_excuses_nothing_of_the_next_server(scene: Scene) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await scene.strike(Nemesis.PROVIDER_HANG, 5)
    await scene.link.open(scene.life.stubs, "")
    assert not scene.link.provider_troubles.was_any(time.monotonic() + 0.01)


async def test_strikes_at_the_network_come_one_after_the_other(scene: Scene) -> None:
    await asyncio.gather(scene.strike(Nemesis.SWALLOW), scene.strike(Nemesis.CUT))
    assert scene.proxy.told == ["swallow", "restore", "cut False", "restore"]


async def test_the_server_is_back_once_it_has_written_what_it_did_not_know(scene: Scene) -> None:
    scene.sessions.failures = [Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED]
    await scene.strike(Nemesis.CUT)
    await scene.strike(Nemesis.CUT)
    assert scene.sessions.keys == ["probe-1.1"] * 3 + ["probe-1.2"]


async def test_a_server_that_crashes_on_its_way_back_is_found(scene: Scene) -> None:
    scene.sessions.failures = [Code.UNKNOWN]
    with pytest.raises(AssertionError, match=r"^Available: a running server answered UNKNOWN"):
        await scene.strike(Nemesis.CUT)

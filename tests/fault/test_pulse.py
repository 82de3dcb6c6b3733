"""The machine's lateness: a slow disk excuses what it took, and never all of it."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from fault import pulse
from fault.pulse import EXCUSED_SHARE_MAX, Pulse


@asynccontextmanager
async def beating(folder: Path | None) -> AsyncGenerator[Pulse]:
    made = Pulse(folder)
    task = asyncio.create_task(made.run())
    try:
        yield made
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def _write_slowly(_: int) -> None:
    time.sleep(0.4)


async def test_a_slow_disk_excuses_what_it_took(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulse, "_write", _write_slowly)
    async with beating(tmp_path) as made:
        began = time.monotonic()
        await asyncio.sleep(0.3)
        assert 0.1 < made.slow_seconds(began) < 0.4, "while it is under way"
        await asyncio.sleep(0.6)
        assert made.slow_seconds(began) > 0.6, "and afterwards"
        assert made.excuse_seconds(began) <= EXCUSED_SHARE_MAX * (time.monotonic() - began)
        assert made.slow_seconds(time.monotonic()) == pytest.approx(0, abs=0.05), "not what came before"


@pytest.mark.parametrize("has_folder", [True, False])
async def test_what_is_fast_excuses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, has_folder: bool
) -> None:
    written: list[int] = []
    monkeypatch.setattr(pulse, "_write", written.append)
    async with beating(tmp_path if has_folder else None) as made:
        began = time.monotonic()
        await asyncio.sleep(0.3)
        assert made.slow_seconds(began) == 0
    assert bool(written) is has_folder


async def test_the_disk_is_really_written(tmp_path: Path) -> None:
    async with beating(tmp_path):
        await asyncio.sleep(0.2)
    assert (tmp_path / "pulse").read_bytes() == b"pulse"

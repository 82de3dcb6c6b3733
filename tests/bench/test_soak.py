"""The soak in small, and its judgement, which must find what rises and what falls. No timings."""

import asyncio
from pathlib import Path

from bench.processes import our_server
from bench.soak import WINDOWS, Window, judge, soak


def _windows(pss_rise: float, rate_rise: float) -> list[Window]:
    parts = [number / WINDOWS for number in range(1, WINDOWS + 1)]
    return [Window(60 * p, 80 * (1 + pss_rise * p), 50 * (1 + rate_rise * p), 5000.0) for p in parts]


def test_what_stays_is_flat() -> None:
    noisy = [
        Window(
            window.seconds, window.pss_mib + (-1) ** number, window.inferences_per_second, 5000.0 + 300 * (number % 3)
        )
        for number, window in enumerate(_windows(0, 0))
    ]
    assert [verdict.is_flat for verdict in judge(noisy)] == [True, True, True]


def test_memory_that_rises_is_not_flat_and_memory_that_falls_is() -> None:
    assert [verdict.is_flat for verdict in judge(_windows(0.2, 0))] == [False, True, True]
    assert [verdict.is_flat for verdict in judge(_windows(-0.2, 0))] == [True, True, True]


def test_rates_that_change_are_not_flat() -> None:
    for change in (-0.4, 0.6):
        assert [verdict.is_flat for verdict in judge(_windows(0, change))] == [True, False, True]


def test_the_beginning_does_not_count() -> None:
    windows = _windows(0, 0)
    windows[:5] = [Window(window.seconds, 20.0, 1.0, 1.0) for window in windows[:5]]
    assert [verdict.is_flat for verdict in judge(windows)] == [True, True, True]


def test_a_short_soak_receives_every_event(tmp_path: Path) -> None:
    with our_server(str(tmp_path / "bench.db")) as server:
        windows, tally = asyncio.run(soak(server, 2.0))
    assert not tally.failures
    assert tally.inferences > 0
    assert tally.events > 100 * tally.inferences
    assert len(windows) > WINDOWS // 2
    assert all(window.pss_mib > 1 for window in windows)
    assert len(judge(windows)) == 3

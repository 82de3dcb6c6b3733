"""Overload: watchers that stop reading, and the largest events. Memory is bounded, and the inference not disturbed.

`python -m bench.overload` is the long form, with 5,000 watchers.
"""

from pathlib import Path

from bench.overload import KIB_PER_WATCHER_MAX, overload

WATCHERS = 200
BLOCKS = 30


def test_watchers_that_stop_reading_cost_little_and_disturb_nobody(tmp_path: Path) -> None:
    outcome = overload(tmp_path, WATCHERS, BLOCKS)  # which fails unless the watcher who reads gets every event
    assert outcome.largest_event_bytes > 250_000
    assert outcome.events > 4 * BLOCKS
    # Each was sent far more than that, so it is the server's bound that holds.
    assert outcome.kib_per_watcher < KIB_PER_WATCHER_MAX < BLOCKS * 512

"""h2load as a client: an answer that does not come is no figure, and nothing is left running."""

from pathlib import Path

import pytest

from bench import h2load
from bench.events import Order
from bench.h2load import LoadError, Posted, run_h2load
from bench.machine import missing_h2load
from bench.processes import peer

pytestmark = pytest.mark.skipif(bool(missing_h2load()), reason=missing_h2load())


def test_a_stream_that_does_not_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(h2load, "SECONDS_MAX", 0.5)
    endless = Order(1000, pace_seconds=10).encode()
    with peer("bare") as server, pytest.raises(LoadError, match="not every answer"):
        run_h2load(server.address, [Posted("/bench.Bare/Stream", endless)] * 2)
    assert "h2load" not in _children()


def test_a_server_that_is_not_there_is_no_figure() -> None:
    with pytest.raises(LoadError):
        run_h2load("127.0.0.1:9", [Posted("/bench.Bare/Echo", b"x")])


def _children() -> str:
    pids = Path("/proc/self/task").glob("*/children")
    children = [Path(f"/proc/{pid}/comm") for file in pids for pid in file.read_text("utf-8").split()]
    return " ".join(each.read_text("utf-8") for each in children if each.exists())

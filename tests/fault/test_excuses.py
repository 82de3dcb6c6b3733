"""What a server may log: a defect that only its log tells of is found, whatever else befalls the server."""

import json
from functools import partial

import pytest

from fault.excuses import is_excused
from support.server_log import SCRIPTED_CRASH, check_log


def _line(event: str, error: str = "", said: str = "", level: str = "error") -> str:
    exception = {"exception": [{"exc_type": error, "exc_value": said}]} if error else {}
    return json.dumps({"level": level, "event": event, **exception}) + "\n"


@pytest.mark.parametrize(
    "line",
    [
        _line("attempt crashed", "KeyError", "x", level="info"),
        _line("engine crashed", "RuntimeError", SCRIPTED_CRASH),
        _line("engine did not stop; abandoned"),
        _line("ExecuteBatchError raised in core by servicer method [/x/SubscribeEvents]", "ExecuteBatchError"),
        '{"level": "error", "event": "cut by a k',
    ],
)
def test_what_is_told_or_happens_to_any_server_passes(line: str) -> None:
    check_log([line], partial(is_excused, is_store_troubled=False))


@pytest.mark.parametrize(
    "line",
    [
        _line("the store takes no writes"),
        _line("rpc failed", "OperationalError", "disk I/O error"),
        _line("failed; it will be tried again", "OperationalError", "database or disk is full"),
    ],
)
def test_what_a_disk_does_passes_as_long_as_it_did(line: str) -> None:
    check_log([line], partial(is_excused, is_store_troubled=True))
    with pytest.raises(AssertionError, match=r"^Available: the server logged"):
        check_log([line], partial(is_excused, is_store_troubled=False))


@pytest.mark.parametrize(
    "line",
    [
        _line("attempt is stuck; cancelled"),
        _line("engine crashed", "RuntimeError", "other words"),
        _line("engine crashed", "KeyError", SCRIPTED_CRASH),
        _line("attempt crashed", "OperationalError"),
        _line("failed; it will be tried again", "KeyError", "x"),
        _line("rpc crashed", "KeyError", "x", level="critical"),
        "Traceback (most recent call last):\n",
    ],
)
def test_a_defect_is_never_excused(line: str) -> None:
    with pytest.raises(AssertionError, match=r"^Available: the server (logged|wrote)"):
        check_log([line], partial(is_excused, is_store_troubled=True))

"""tool_result_reorder: answers behind their calls."""

import time
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnwire_server.domain.tool import ToolCall, ToolUse
from turnwire_server.domain.turn import Block, LlmText
from turnwire_server.middleware.tool_result_reorder import ToolResultReorder, reorder
from unit.server.middleware.stage import Play, engine_call


def blocks_of(text: str) -> tuple[Block, ...]:
    """Return blocks: `a` calls a, `A` answers it, `.` is text; each has its position as its id."""
    numbers = count()
    return tuple(
        Block(
            str(next(numbers)),
            LlmText(".") if each == "." else ToolCall(each, "tool") if each.islower() else ToolUse(each.lower(), "1"),
        )
        for each in text
    )


def positions(blocks: tuple[Block, ...]) -> list[int]:
    return [int(block.id) for block in blocks]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ab.BA", [0, 1, 4, 3, 2]),  # in the order of the calls
        ("a.b.BA", [0, 5, 1, 2, 4, 3]),  # each behind its own run
        ("aA.bB", [0, 1, 2, 3, 4]),
        ("a.A.a.A", [0, 2, 1, 3, 4, 6, 5]),  # the same id again
        ("a.a.AA", [0, 5, 1, 2, 4, 3]),  # the nearest call first
        ("aa.AA", [0, 1, 3, 4, 2]),  # in one run the first
        ("A.a", [0, 1, 2]),  # nothing was asked before
        ("a.AA", [0, 2, 1, 3]),  # one answer is too many
        ("ab.A", [0, 1, 3, 2]),  # one is missing
        ("baAbB", [0, 1, 2, 3, 4]),  # runs stay apart
        ("ab", [0, 1]),
        ("", []),
    ],
)
def test_answers_follow_their_run(text: str, expected: list[int]) -> None:
    assert positions(reorder(blocks_of(text))) == expected


@given(st.text("abAB.", max_size=16))
def test_nothing_is_lost_and_the_rest_keeps_its_order(text: str) -> None:
    blocks = blocks_of(text)
    shown = reorder(blocks)
    assert sorted(positions(shown)) == list(range(len(blocks)))
    rest = [block for block in blocks if not isinstance(block.kind, ToolUse)]
    assert [block for block in shown if not isinstance(block.kind, ToolUse)] == rest


@given(st.permutations("abcABC..").map("".join))
def test_the_second_time_changes_nothing(text: str) -> None:
    shown = reorder(blocks_of(text))
    assert reorder(shown) == shown


@pytest.mark.parametrize("text", ["a" * 10_000, "a." * 10_000])
def test_one_id_for_all_calls_takes_no_time(text: str) -> None:
    blocks = blocks_of(text + "A" * 10_000)
    began = time.monotonic()
    reorder(blocks)
    assert time.monotonic() - began < 2


async def test_the_engine_sees_them_in_order() -> None:
    play = Play()
    await play.run(ToolResultReorder(), engine_call(blocks=blocks_of("ab.BA")))
    assert positions(play.seen[0].blocks) == [0, 1, 4, 3, 2]

"""The fold: events to blocks, complete and cut at every place."""

from datetime import UTC, datetime

import pytest

from turnwire_server.domain.event import (
    Event,
    InferenceQueued,
    LlmDelta,
    LlmFinal,
    LlmStart,
    LlmThinkingDelta,
    LlmThinkingFinal,
    LlmThinkingStart,
    Payload,
    ToolCallCompleted,
    ToolDelta,
    ToolDone,
    ToolStart,
)
from turnwire_server.domain.tool import ToolCall
from turnwire_server.domain.turn import Block, BlockStatus, LlmText, Reasoning
from turnwire_server.events.snapshot import Fold

NOW = datetime(2026, 1, 1, tzinfo=UTC)
STORY: list[tuple[Payload, str]] = [
    (InferenceQueued(1), ""),
    (LlmThinkingStart(), "r"),
    (LlmThinkingDelta("hm", 0), "r"),
    (LlmThinkingFinal("hm", 2, signature="sig", encrypted_content="enc", summary="sum", item="it"), "r"),
    (LlmStart(), "t"),
    (LlmDelta("Hel", 0), "t"),
    (ToolStart("look_up"), "call_1"),
    (LlmDelta("lo", 3), "t"),
    (ToolDelta('{"q"', 0), "call_1"),
    (LlmFinal("", 5, text_omitted=True), "t"),
    (ToolDelta(":1}", 4), "call_1"),
    (ToolCallCompleted(ToolCall("call_1", "look_up"), args_omitted=True), "call_1"),
    (ToolDone(), "call_1"),
]
COMPLETE, INCOMPLETE = BlockStatus.COMPLETE, BlockStatus.INCOMPLETE


def _fold(count: int) -> tuple[Block, ...]:
    fold = Fold()
    for payload, entity in STORY[:count]:
        fold.apply(Event("s", "i", NOW, payload, entity))
    return fold.blocks()


def test_a_whole_story_is_whole_blocks_in_the_order_of_their_starts() -> None:
    assert _fold(len(STORY)) == (
        Block("r", Reasoning("hm", "sum", "enc", "sig", "it"), "assistant", COMPLETE),
        Block("t", LlmText("Hello"), "assistant", COMPLETE),
        Block("", ToolCall("call_1", "look_up", '{"q":1}'), "assistant", COMPLETE),
    )


@pytest.mark.parametrize(
    ("count", "blocks"),
    [
        (1, ()),
        (2, ()),  # a start alone is not a block
        (3, (Block("r", Reasoning("hm"), "assistant", INCOMPLETE),)),
        (7, (_fold(4)[0], Block("t", LlmText("Hel"), "assistant", INCOMPLETE),
             Block("", ToolCall("call_1", "look_up", ""), "assistant", INCOMPLETE))),
        (9, (_fold(4)[0], Block("t", LlmText("Hello"), "assistant", INCOMPLETE),
             Block("", ToolCall("call_1", "look_up", '{"q"'), "assistant", INCOMPLETE))),
    ],
)  # fmt: skip
def test_a_story_that_broke_off_is_what_had_arrived(count: int, blocks: tuple[Block, ...]) -> None:
    assert _fold(count) == blocks


def test_reasoning_whose_final_left_something_out_has_nothing_for_its_provider() -> None:
    fold = Fold()
    final = LlmThinkingFinal("", 2, text_omitted=True, signature="sig", item="it")
    for payload in (LlmThinkingStart(), LlmThinkingDelta("hm", 0), final):
        fold.apply(Event("s", "i", NOW, payload, "r"))
    assert fold.blocks() == (Block("r", Reasoning("hm"), "assistant", COMPLETE),)

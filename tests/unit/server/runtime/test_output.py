"""What an engine says, told as events."""

import pytest

from turnwire_server.domain.errors import OutputTooLargeError
from turnwire_server.domain.event import (
    LlmDelta,
    LlmFinal,
    LlmStart,
    LlmThinkingFinal,
    LlmThinkingStart,
    Payload,
    ToolCallCompleted,
    ToolDelta,
    ToolDone,
    ToolStart,
)
from turnwire_server.domain.tool import ToolCall
from turnwire_server.engines.base import PartDelta, PartEnd, PartKind, PartStart
from turnwire_server.runtime.output import DELTA_CHARACTERS_MAX, OUTPUT_BYTES_MAX, REASONING_EXTRAS_MAX, Output


class Listener:
    """Keeps what is told, and joins the deltas of each entity, as the fold does."""

    def __init__(self) -> None:
        self.told: list[tuple[Payload, str]] = []
        self.texts: dict[str, str] = {}
        self.names = iter(f"id{number}" for number in range(100))
        self.output = Output(self._tell, lambda entity: self.texts.get(entity, ""), lambda: next(self.names))

    async def _tell(self, payload: Payload, entity: str) -> None:
        self.told.append((payload, entity))
        if isinstance(payload, LlmDelta | ToolDelta):
            self.texts[entity] = self.texts.get(entity, "") + payload.delta


async def test_offsets_count_bytes_and_the_final_has_it_all() -> None:
    listener = Listener()
    for chunk in (PartStart(0, PartKind.TEXT), PartDelta(0, "grü"), PartDelta(0, ""), PartDelta(0, "ß👋"), PartEnd(0)):
        await listener.output.take(chunk)
    assert listener.told == [
        (LlmStart(), "id0"),
        (LlmDelta("grü", 0), "id0"),
        (LlmDelta("ß👋", 4), "id0"),
        (LlmFinal("grüß👋", 10), "id0"),
    ]


async def test_a_part_that_says_nothing_is_not_told() -> None:
    listener = Listener()
    await listener.output.take(PartStart(0, PartKind.TEXT))
    await listener.output.take(PartStart(1, PartKind.THINKING))
    await listener.output.end()
    assert listener.told == []


async def test_reasoning_without_text_is_told_for_what_its_provider_wants_back() -> None:
    listener = Listener()
    await listener.output.take(PartStart(0, PartKind.THINKING))
    await listener.output.take(PartEnd(0, signature="sig"))
    assert listener.told == [(LlmThinkingStart(), "id0"), (LlmThinkingFinal("", 0, signature="sig"), "id0")]


async def test_parts_may_interleave_and_open_ones_are_ended() -> None:
    listener = Listener()
    for chunk in (
        PartStart(0, PartKind.TOOL_CALL, "c1", "one"),
        PartStart(1, PartKind.TOOL_CALL, "", "two"),
        PartDelta(1, "{}"),
        PartDelta(0, '{"a":'),
        PartDelta(0, "1}"),
        PartEnd(0),
    ):
        await listener.output.take(chunk)
    assert listener.output.has_tool_calls
    await listener.output.end()
    assert listener.told == [
        (ToolStart("one"), "c1"),
        (ToolStart("two"), "id0"),
        (ToolDelta("{}", 0), "id0"),
        (ToolDelta('{"a":', 0), "c1"),
        (ToolDelta("1}", 5), "c1"),
        (ToolCallCompleted(ToolCall("c1", "one", '{"a":1}')), "c1"),
        (ToolDone(), "c1"),
        (ToolCallCompleted(ToolCall("id0", "two", "{}")), "id0"),
        (ToolDone(), "id0"),
    ]


async def test_a_long_piece_is_cut_and_half_a_character_is_replaced() -> None:
    listener = Listener()
    await listener.output.take(PartStart(0, PartKind.TEXT))
    await listener.output.take(PartDelta(0, "x" * (2 * DELTA_CHARACTERS_MAX + 1) + "\ud83d"))
    deltas = [payload for payload, _ in listener.told if isinstance(payload, LlmDelta)]
    assert [len(delta.delta) for delta in deltas] == [DELTA_CHARACTERS_MAX, DELTA_CHARACTERS_MAX, 2]
    assert deltas[-1].delta == "x?"


@pytest.mark.parametrize(
    ("kind", "limit"), [(PartKind.TEXT, OUTPUT_BYTES_MAX), (PartKind.TOOL_CALL, OUTPUT_BYTES_MAX // 2)]
)
async def test_a_block_of_output_is_bounded(kind: PartKind, limit: int) -> None:
    listener = Listener()
    await listener.output.take(PartStart(0, kind, "c", "n"))
    await listener.output.take(PartDelta(0, "x" * limit))
    with pytest.raises(OutputTooLargeError):
        await listener.output.take(PartDelta(0, "x"))


async def test_what_goes_with_reasoning_is_bounded() -> None:
    listener = Listener()
    await listener.output.take(PartStart(0, PartKind.THINKING))
    with pytest.raises(OutputTooLargeError):
        await listener.output.take(PartEnd(0, encrypted_content="x" * (REASONING_EXTRAS_MAX + 1)))


@pytest.mark.parametrize("args", ['{"a": "cut', "[1]", "1"])
async def test_arguments_that_are_no_object_are_no_call(args: str) -> None:
    listener = Listener()
    await listener.output.take(PartStart(0, PartKind.TOOL_CALL, "c", "n"))
    await listener.output.take(PartDelta(0, args))
    await listener.output.end()
    assert listener.told == [(ToolStart("n"), "c"), (ToolDelta(args, 0), "c"), (ToolDone(), "c")]
    assert not listener.output.has_tool_calls

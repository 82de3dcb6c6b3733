"""What an engine says, told as events."""

from datetime import UTC, datetime

import pytest

from turnwire_server.domain.errors import OutputTooLargeError
from turnwire_server.domain.event import (
    Event,
    LlmDelta,
    LlmFinal,
    LlmStart,
    LlmThinkingFinal,
    LlmThinkingStart,
    Payload,
    ToolCallCompleted,
    ToolDelta,
    ToolDone,
    ToolsRequired,
    ToolStart,
)
from turnwire_server.domain.tool import ToolCall
from turnwire_server.engines.base import EngineChunk, PartDelta, PartEnd, PartKind, PartStart
from turnwire_server.events.snapshot import Fold
from turnwire_server.runtime.output import (
    BLOCK_BYTES_MAX,
    CALL_ENCODING_BYTES,
    CALLS_BYTES_MAX,
    DELTA_CHARACTERS_MAX,
    OUTPUT_BYTES_MAX,
    REASONING_BYTES_MAX,
    SIGNATURE_BYTES_MAX,
    TOOL_CALL_LENGTH_MAX,
    BrokenOutput,
    Output,
)
from turnwire_server.wire.event import encode_event


class Listener:
    """Keeps what is told, and folds it, as an attempt does."""

    def __init__(self) -> None:
        self.told: list[tuple[Payload, str]] = []
        self.fold = Fold()
        self.names = iter(f"id{number}" for number in range(100))
        self.output = Output(self._tell, self.fold, lambda: next(self.names))

    async def _tell(self, payload: Payload, entity: str) -> None:
        self.told.append((payload, entity))
        self.fold.apply(Event("s", "i", datetime(2026, 1, 1, tzinfo=UTC), payload, entity))

    async def take(self, *chunks: EngineChunk) -> None:
        for chunk in chunks:
            await self.output.take(chunk)


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


@pytest.mark.parametrize("kind", PartKind)
async def test_a_block_of_output_is_bounded(kind: PartKind) -> None:
    listener = Listener()
    await listener.take(PartStart(0, kind, "c", "n"), PartDelta(0, "x" * BLOCK_BYTES_MAX[kind]))
    for _ in range(2):  # an engine that swallows the error gets it again
        with pytest.raises(OutputTooLargeError):
            await listener.take(PartDelta(0, "x"))
    with pytest.raises(OutputTooLargeError):
        await listener.output.end()


async def test_the_calls_of_one_engine_call_fit_into_one_event() -> None:
    listener = Listener()
    name = "ü" * TOOL_CALL_LENGTH_MAX
    count = CALLS_BYTES_MAX // (2 * len(name.encode()) + CALL_ENCODING_BYTES)
    ids = [f"{number:03}".rjust(TOOL_CALL_LENGTH_MAX, "ü") for number in range(count + 2)]
    starts = [PartStart(number, PartKind.TOOL_CALL, each, name) for number, each in enumerate(ids)]
    with pytest.raises(OutputTooLargeError):
        await listener.take(*starts)
    calls = tuple(ToolCall(entity, name) for payload, entity in listener.told if isinstance(payload, ToolStart))
    assert len(calls) >= count
    event = Event("s", "i", datetime(2026, 1, 1, tzinfo=UTC), ToolsRequired(calls))
    assert len(encode_event(event)) <= CALLS_BYTES_MAX + 4096


async def test_all_output_together_is_bounded() -> None:
    listener = Listener()
    size = BLOCK_BYTES_MAX[PartKind.TEXT]
    for number in range(OUTPUT_BYTES_MAX // size):
        await listener.take(PartStart(number, PartKind.TEXT), PartDelta(number, "x" * size), PartEnd(number))
    with pytest.raises(OutputTooLargeError):
        await listener.take(PartStart(99, PartKind.TEXT), PartDelta(99, "x"))


@pytest.mark.parametrize(
    "end",
    [
        PartEnd(0, encrypted_content="x" * REASONING_BYTES_MAX, summary="x"),
        PartEnd(0, summary="ü" * (REASONING_BYTES_MAX // 2 + 1)),
        PartEnd(0, signature="x" * (SIGNATURE_BYTES_MAX + 1)),
    ],
    ids=["together", "in bytes", "signature"],
)
async def test_what_goes_with_reasoning_is_bounded(end: PartEnd) -> None:
    listener = Listener()
    await listener.take(PartStart(0, PartKind.THINKING))
    with pytest.raises(OutputTooLargeError):
        await listener.take(end)


TEXT = PartStart(0, PartKind.TEXT)
BROKEN: dict[str, tuple[EngineChunk, ...]] = {
    "a delta of nothing": (PartDelta(0, "x"),),
    "an end of nothing": (PartEnd(0),),
    "a part that begins twice": (TEXT, PartDelta(0, "x"), TEXT),
    "a delta after the end": (TEXT, PartEnd(0), PartDelta(0, "x")),
    "an end after the end": (TEXT, PartEnd(0), PartEnd(0)),
    "a tool without a name": (PartStart(0, PartKind.TOOL_CALL, "c"),),
    "a tool with a long name": (PartStart(0, PartKind.TOOL_CALL, "c", "n" * 257),),
}


@pytest.mark.parametrize("chunks", BROKEN.values(), ids=BROKEN)
async def test_an_engine_that_breaks_its_rules_is_stopped(chunks: tuple[EngineChunk, ...]) -> None:
    listener = Listener()
    with pytest.raises(BrokenOutput):
        await listener.take(*chunks)
    with pytest.raises(BrokenOutput):
        await listener.output.end()


async def test_an_engine_that_goes_on_after_its_return_is_stopped() -> None:
    listener = Listener()
    await listener.take(TEXT, PartDelta(0, "x"))
    await listener.output.end()
    with pytest.raises(BrokenOutput):
        await listener.take(PartStart(1, PartKind.TEXT))
    assert len(listener.told) == 3


async def test_ids_that_cannot_be_kept_are_replaced() -> None:
    listener = Listener()
    for number, wished in enumerate(("c", "c", "x" * 257, "")):
        await listener.take(PartStart(number, PartKind.TOOL_CALL, wished, "n"), PartEnd(number))
    assert [entity for payload, entity in listener.told if isinstance(payload, ToolStart)] == ["c", "id0", "id1", "id2"]
    assert len(listener.fold.blocks()) == 4


@pytest.mark.parametrize("args", ['{"a": "cut', "[1]", "1", '{"a": NaN}'])
async def test_arguments_that_are_no_object_are_no_call(args: str) -> None:
    listener = Listener()
    await listener.output.take(PartStart(0, PartKind.TOOL_CALL, "c", "n"))
    await listener.output.take(PartDelta(0, args))
    await listener.output.end()
    assert listener.told == [(ToolStart("n"), "c"), (ToolDelta(args, 0), "c"), (ToolDone(), "c")]
    assert not listener.output.has_tool_calls


async def test_arguments_may_have_numbers_of_any_length() -> None:
    listener = Listener()
    args = f'{{"a": {"1" * 5000}}}'
    await listener.take(PartStart(0, PartKind.TOOL_CALL, "c", "n"), PartDelta(0, args), PartEnd(0))
    assert listener.output.has_tool_calls

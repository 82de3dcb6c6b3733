"""Output: the text that events amount to."""

import pytest

from turnwire.v1.event_pb2 import (
    Event,
    InferenceAttemptLost,
    LlmDelta,
    LlmFinal,
    LlmStart,
    LlmThinkingDelta,
    LlmThinkingFinal,
    Log,
)
from turnwire_client import Client, ProtocolError
from turnwire_client.output import Output
from turnwire_client.testing import FakeServer


def told(*events: Event) -> Output:
    """An Output that was given these events, numbered from 1."""
    output = Output()
    for sequence, event in enumerate(events, start=1):
        event.sequence = sequence
        output.take(event)
    return output


def delta(text: str, offset: int = 0, entity: str = "a", inference: str = "i") -> Event:
    return Event(inference_id=inference, entity=entity, llm_delta=LlmDelta(delta=text, offset=offset))


def final(text: str, entity: str = "a") -> Event:
    return Event(inference_id="i", entity=entity, llm_final=LlmFinal(text=text, text_bytes=len(text.encode())))


def lost(holds_through: int) -> Event:
    return Event(inference_id="i", inference_attempt_lost=InferenceAttemptLost(superseded_after_sequence=holds_through))


def test_deltas_are_joined_and_the_final_is_the_text() -> None:
    start = Event(inference_id="i", entity="a", llm_start=LlmStart(role="assistant"))
    assert told(start, delta("one "), delta("two", 4)).text == "one two"
    assert told(start, delta("one "), delta("two", 4), final("one two")).text == "one two"
    assert told(Event(inference_id="i", log=Log(message="x"))).text == ""


def test_reasoning_is_apart() -> None:
    thinking = Event(inference_id="i", entity="t", llm_thinking_delta=LlmThinkingDelta(delta="hm"))
    done = Event(inference_id="i", entity="t", llm_thinking_final=LlmThinkingFinal(text="hm", text_bytes=2))
    output = told(thinking, done, delta("x"))
    assert (output.text, output.reasoning) == ("x", "hm")
    other = Event(inference_id="i", entity="t", llm_thinking_final=LlmThinkingFinal(text="hmm", text_bytes=3))
    with pytest.raises(ProtocolError, match="event 2 has a text that its deltas do not amount to"):
        told(thinking, other)


def test_blocks_are_told_apart_by_inference() -> None:
    output = told(delta("a"), delta("b", inference="j"), delta("c", entity="c"))
    assert output.blocks("text") == ["a", "b", "c"]
    assert output.blocks("text", "i") == ["a", "c"]


def test_what_is_void_is_dropped_and_what_holds_stays() -> None:
    assert told(delta("kept "), delta("void", 5), final("kept void"), lost(1)).text == "kept "
    assert told(delta("kept "), delta("void", entity="b"), lost(1), delta("new", entity="c")).text == "kept new"
    assert told(delta("kept "), delta("void", 5), lost(1), delta("new", 5)).text == "kept new"


def test_a_loss_is_of_one_inference() -> None:
    assert told(delta("a", inference="j"), delta("void"), lost(1)).text == "a"


def test_a_final_without_its_text_is_checked_against_its_deltas() -> None:
    omitted = Event(inference_id="i", entity="a", llm_final=LlmFinal(text_bytes=3, text_omitted=True))
    assert told(delta("\N{EURO SIGN}"), omitted).text == "\N{EURO SIGN}"
    with pytest.raises(ProtocolError, match="ends 3 bytes, and 2 came"):
        told(delta("ab"), omitted)


@pytest.mark.parametrize("text", ["one", "one three", "one two!", "two one "])
def test_a_final_with_its_text_is_compared_with_its_deltas(text: str) -> None:
    with pytest.raises(ProtocolError, match="event 3 has a text that its deltas do not amount to"):
        told(delta("one "), delta("two", 4), final(text))


def test_a_final_is_compared_with_the_deltas_that_came() -> None:
    assert told(delta("two", 4), final("one two")).text == "one two"
    assert told(delta("\N{EURO SIGN}", 3), final("\N{EURO SIGN}\N{EURO SIGN}")).text == "\N{EURO SIGN}\N{EURO SIGN}"
    assert told(Event(inference_id="i", entity="a", llm_start=LlmStart()), final("one two")).text == "one two"
    with pytest.raises(ProtocolError, match="event 2 has a text"):
        told(delta("two", 4), final("one too"))
    with pytest.raises(ProtocolError, match="event 4 has a text"):
        told(delta("kept "), delta("void", 5), lost(1), final("kept void"))


def test_a_delta_that_does_not_continue_its_block_is_an_error() -> None:
    with pytest.raises(ProtocolError, match="has the offset 5, not 4"):
        told(delta("one "), delta("two", 5))


def test_events_may_begin_in_the_middle_of_a_block() -> None:
    assert told(delta("two ", 4), delta("three", 8)).text == "two three"


async def test_it_amounts_to_the_result(fake: FakeServer, client: Client) -> None:
    fake.reply("one two three", thinking="hm")
    handle = await client.start_inference(input="hello")
    output = Output()
    async for event in handle.events():
        output.take(event)
    assert output.text == (await handle.result()).text
    assert output.reasoning == "hm"

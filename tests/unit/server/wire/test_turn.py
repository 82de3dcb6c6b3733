import itertools

import pytest

from support.samples import sample
from turnwire.v1 import tool_pb2, turn_pb2
from turnwire_server.domain.errors import InvalidFieldError, UnknownBlockKindError
from turnwire_server.domain.tool import ToolCall, ToolUse
from turnwire_server.domain.turn import Block, BlockStatus, Image, LlmText, Other, System, User
from turnwire_server.wire.turn import (
    BLOCK_BYTES_MAX,
    block_from_proto,
    block_to_proto,
    decode_block,
    encode_block,
    from_proto,
    input_from_proto,
    to_proto,
)

USER = turn_pb2.Block(user=turn_pb2.UserBlock(text="hello"))


def read(*messages: turn_pb2.Block) -> tuple[Block, ...]:
    numbers = itertools.count(1)
    return input_from_proto(messages, lambda: f"id-{next(numbers)}")


def violations(*messages: turn_pb2.Block) -> list[str]:
    with pytest.raises(InvalidFieldError) as refused:
        read(*messages)
    return [violation.field for violation in refused.value.violations]


def tool_call(args: str, status: turn_pb2.BlockStatus.ValueType = turn_pb2.BLOCK_STATUS_COMPLETE) -> turn_pb2.Block:
    return turn_pb2.Block(status=status, tool_call=tool_pb2.ToolCall(id="c", name="n", args=args))


def tool_use(result: str) -> turn_pb2.Block:
    return turn_pb2.Block(tool_use=tool_pb2.ToolUse(tool_call="c", result=result))


def test_turn_round_trips() -> None:
    message = sample(turn_pb2.Turn)
    assert to_proto(from_proto(message)) == message


def test_turn_built_on_nothing_has_no_parent() -> None:
    message = sample(turn_pb2.Turn)
    message.ClearField("parent")
    message.ClearField("close_time")
    turn = from_proto(message)
    assert (turn.parent, turn.close_time) == (None, None)
    assert to_proto(turn) == message


def test_turn_on_the_first_one_has_a_parent() -> None:
    message = sample(turn_pb2.Turn)
    message.parent = 0
    assert from_proto(message).parent == 0
    assert to_proto(from_proto(message)).HasField("parent")


def test_block_bytes_are_the_same_for_equal_blocks() -> None:
    one = Block("b", System("x"), metadata={"a.a@v1": "1", "b.b@v1": "2"})
    other = Block("b", System("x"), metadata={"b.b@v1": "2", "a.a@v1": "1"})
    assert encode_block(one) == encode_block(other)
    assert decode_block(encode_block(one)) == one


def test_empty_kind_is_a_kind() -> None:
    for kind in (User(), System(), LlmText(), Other("t")):
        assert decode_block(encode_block(Block("b", kind))).kind == kind


@pytest.mark.parametrize("image", [Image(url="u"), Image(content=b"\x00", media_type="image/png"), Image(file="f")])
def test_image_keeps_its_source(image: Image) -> None:
    assert decode_block(encode_block(Block("b", User("", (image,))))).kind == User("", (image,))


def test_input_gets_ids_roles_and_status() -> None:
    own = turn_pb2.Block(id="own", role="assistant", user=turn_pb2.UserBlock(text="x"))
    assert read(USER, own, tool_use('"ok"'), tool_call("{}")) == (
        Block("id-1", User("hello"), "user"),
        Block("own", User("x"), "assistant"),
        Block("id-2", ToolUse("c", '"ok"'), "tool"),
        Block("id-3", ToolCall("c", "n", "{}"), "assistant"),
    )


def test_reading_a_block_changes_nothing_else() -> None:
    assert block_from_proto(USER) == Block("", User("hello"), "", BlockStatus.COMPLETE)
    assert block_to_proto(block_from_proto(USER)).role == ""


@pytest.mark.parametrize("position", [0, 2])
def test_unknown_kind_is_named_by_position(position: int) -> None:
    blocks = [USER, USER, USER]
    # A kind of a newer contract: a field that we do not know.
    blocks[position] = turn_pb2.Block.FromString(b"\x0a\x01b\xa2\x06\x03\x0a\x01x")
    with pytest.raises(UnknownBlockKindError) as refused:
        read(*blocks)
    assert refused.value.metadata == {"block": str(position)}


@pytest.mark.parametrize("args", ["", "{}", ' \n{"a": [1, 2.5e300, null, "\\u00fc"]} ', '{"n": ' + "9" * 5000 + "}"])
def test_args_are_an_object_or_empty(args: str) -> None:
    assert read(tool_call(args))[0].kind == ToolCall("c", "n", args)


@pytest.mark.parametrize(
    "args", ["[]", "1", "null", '"{}"', "{", "{'a': 1}", '{"a": NaN}', "{} {}", "\ufeff{}", '{"a":' * 100_000]
)
def test_args_that_are_no_object(args: str) -> None:
    assert violations(USER, USER, tool_call(args)) == ["input[2].tool_call.args"]


def test_args_of_an_incomplete_block_are_what_had_arrived() -> None:
    assert read(tool_call('{"a": ', turn_pb2.BLOCK_STATUS_INCOMPLETE))[0].status is BlockStatus.INCOMPLETE


@pytest.mark.parametrize("result", ["1", "null", '"text"', "[]", "{}", "-0.1e-5"])
def test_results_are_any_json(result: str) -> None:
    assert read(tool_use(result))[0].kind == ToolUse("c", result)


@pytest.mark.parametrize("result", ["", "text", "Infinity", "[1,]", "01", "\u00a01"])
def test_results_that_are_no_json(result: str) -> None:
    assert violations(tool_use(result)) == ["input[0].tool_use.result"]


def test_metadata_values_are_json() -> None:
    block = turn_pb2.Block(user=turn_pb2.UserBlock(text="x"), metadata={"a.b@v1": "1", 'x."y"@v1': "nope"})
    assert violations(block) == ['input[0].metadata["x.\\"y\\"@v1"]']


def test_complete_llm_text_is_not_empty() -> None:
    empty = turn_pb2.Block(llm_text=turn_pb2.LlmTextBlock())
    assert violations(empty) == ["input[0].llm_text.text"]
    empty.status = turn_pb2.BLOCK_STATUS_INCOMPLETE
    assert read(empty)[0].kind == LlmText()


def test_every_violation_is_named() -> None:
    assert violations(tool_use("nope"), USER, tool_call("[]")) == [
        "input[0].tool_use.result",
        "input[2].tool_call.args",
    ]


def reasoning(size: int) -> turn_pb2.Block:
    """A block of that many bytes, within the limits of each of its fields."""
    half = 3 * 512 * 1024
    message = turn_pb2.Block(reasoning=turn_pb2.ReasoningBlock(text="x" * half, encrypted_content="x" * half))
    message.reasoning.encrypted_content = "x" * (half - (message.ByteSize() - size))
    return message


def test_block_at_the_limit() -> None:
    at_limit = reasoning(BLOCK_BYTES_MAX)
    assert at_limit.ByteSize() == BLOCK_BYTES_MAX
    assert len(read(at_limit)) == 1
    assert violations(USER, reasoning(BLOCK_BYTES_MAX + 1)) == ["input[1]"]

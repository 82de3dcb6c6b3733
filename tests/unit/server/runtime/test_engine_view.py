"""What an engine is shown of a turn."""

from turnwire_server.domain.tool import ToolCall, ToolUse
from turnwire_server.domain.turn import Block, BlockStatus, LlmText, User
from turnwire_server.runtime.engine_view import UNANSWERED, engine_view

USER = Block("u", User("hello"))
TEXT = Block("t", LlmText("hi"))


def _call(name: str) -> Block:
    return Block(name, ToolCall(name, "tool"))


def _use(name: str) -> Block:
    return Block(f"use {name}", ToolUse(name, "1"))


def _made_up(name: str) -> Block:
    return Block("", ToolUse(name, UNANSWERED), "tool")


def test_no_tool_call_is_left_unanswered() -> None:
    a, b = _call("a"), _call("b")
    assert engine_view((USER, a, b, TEXT)) == (USER, a, b, _made_up("a"), _made_up("b"), TEXT)
    assert engine_view((USER, a, b, _use("a"))) == (USER, a, b, _made_up("b"), _use("a"))
    assert engine_view((a,)) == (a, _made_up("a"))
    assert engine_view((a, _use("a"), TEXT)) == (a, _use("a"), TEXT)


def test_an_answer_to_nothing_is_not_shown() -> None:
    assert engine_view((_use("a"), USER, _call("a"), _use("a"))) == (USER, _call("a"), _use("a"))


def test_a_call_whose_arguments_were_cut_is_not_shown() -> None:
    cut = Block("c", ToolCall("c", "tool", '{"a'), status=BlockStatus.INCOMPLETE)
    assert engine_view((USER, cut, TEXT)) == (USER, TEXT)


def test_names_of_calls_may_come_again_in_another_turn() -> None:
    again = _call("a")
    assert engine_view((_call("a"), _use("a"), TEXT, again)) == (_call("a"), _use("a"), TEXT, again, _made_up("a"))
    assert engine_view((_call("a"), TEXT, again, _use("a"))) == (_call("a"), _made_up("a"), TEXT, again, _use("a"))

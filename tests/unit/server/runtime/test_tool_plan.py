"""What becomes of the tool calls that a model made."""

from dataclasses import replace
from itertools import product

import pytest

from turnwire_server.domain.errors import ToolsUnavailableError
from turnwire_server.domain.inference import InferenceConfig
from turnwire_server.domain.profile import ToolPolicy
from turnwire_server.domain.tool import Tool, ToolCall, ToolPlacement
from turnwire_server.runtime.checkpoint import CallState, PlannedCall
from turnwire_server.runtime.tool_plan import Offer, config_of_call, plan_calls, plan_offer
from turnwire_server.tools.base import ToolDefinition

SERVER, CLIENT = ToolPlacement.SERVER, ToolPlacement.CLIENT
OWN = {
    "read": ToolDefinition(Tool("read", "reads", "{}", SERVER), is_idempotent=True),
    "write": ToolDefinition(Tool("write", "writes", "{}", SERVER, approval_required=True)),
}


def test_the_tools_of_a_request_are_offered_beside_those_of_the_profile() -> None:
    offer = plan_offer(OWN, [Tool("ask", "asks")], ToolPolicy(approve=frozenset({"read"})))
    assert {name: (tool.placement, tool.approval_required) for name, tool in offer.tools.items()} == {
        "read": (SERVER, True),
        "write": (SERVER, True),
        "ask": (CLIENT, False),
    }
    assert offer.idempotent == {"read"}


def test_a_request_may_want_a_tool_of_the_server_approved() -> None:
    offer = plan_offer(OWN, [Tool("read", placement=SERVER, approval_required=True)], ToolPolicy())
    assert offer.tools["read"] == replace(OWN["read"].tool, approval_required=True)
    offer = plan_offer(OWN, [Tool("write", placement=SERVER)], ToolPolicy())
    assert offer.tools["write"].approval_required
    with pytest.raises(ToolsUnavailableError) as refused:
        plan_offer(OWN, [Tool("reed", placement=SERVER, approval_required=True)], ToolPolicy())
    assert refused.value.metadata == {"source": "reed"}


def test_a_tool_of_a_request_takes_the_place_of_one_with_its_name() -> None:
    offer = plan_offer(OWN, [Tool("write", "mine")], ToolPolicy())
    assert offer.tools["write"] == Tool("write", "mine", placement=CLIENT)


def test_only_what_is_allowed_is_offered() -> None:
    offer = plan_offer(OWN, [Tool("ask"), Tool("tell")], ToolPolicy(allow=frozenset({"read", "tell"})))
    assert offer.tools.keys() == {"read", "tell"}
    assert plan_offer(OWN, [], ToolPolicy(allow=frozenset())).tools == {}


def test_a_tool_has_to_be_used_once_only() -> None:
    for choice, iteration in product(("", "auto", "none", "required", "read"), (1, 2, 7)):
        config = InferenceConfig(seed=1, tool_choice=choice)
        is_freed = iteration > 1 and choice in {"required", "read"}
        expected = replace(config, tool_choice="auto") if is_freed else config
        assert config_of_call(config, iteration) == expected


OFFER = plan_offer(OWN, [Tool("ask"), Tool("sign", approval_required=True)], ToolPolicy())
KNOWN = frozenset(OFFER.tools)


def _plan(name: str, offered: Offer = OFFER, choice: str = "") -> PlannedCall:
    [planned] = plan_calls([ToolCall("c", name)], offered, KNOWN, choice)
    return planned


@pytest.mark.parametrize("choice", ["", "auto", "required"])
def test_who_executes_what(choice: str) -> None:
    assert _plan("read", choice=choice) == PlannedCall("c", "read", CallState.SERVER, is_idempotent=True)
    assert _plan("write", choice=choice) == PlannedCall("c", "write", CallState.APPROVAL)
    assert _plan("ask", choice=choice) == PlannedCall("c", "ask", CallState.CLIENT, CallState.CLIENT)
    assert _plan("sign", choice=choice) == PlannedCall("c", "sign", CallState.APPROVAL, CallState.CLIENT)


def test_what_was_not_offered_is_refused() -> None:
    narrow = OFFER.narrowed({"read"})
    assert _plan("ask", narrow) == PlannedCall("c", "ask", CallState.REFUSED, code="not_allowed")
    assert _plan("nothing") == PlannedCall("c", "nothing", CallState.REFUSED, code="unknown_tool")
    assert _plan("read", narrow).state is CallState.SERVER


def test_what_the_choice_does_not_allow_is_refused() -> None:
    assert _plan("read", choice="none").code == "not_allowed"
    assert _plan("ask", choice="read").code == "not_allowed"
    assert _plan("read", choice="read").state is CallState.SERVER
    assert _plan("nothing", choice="none").code == "unknown_tool"

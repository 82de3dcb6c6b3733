"""The diagram in inference.proto is the table TRANSITIONS, and our enums are those of the contract."""

import re
from collections.abc import Mapping
from enum import IntEnum
from types import ModuleType

import pytest
from grpc import StatusCode

from support.proto_docs import Element, load_contract
from support.seeded import seeded_contract
from turnwire_server.domain import errors, inference, tool, turn
from turnwire_server.domain.inference import TRANSITIONS, InferenceState

_MOVE = re.compile(r"^ {5}([A-Z_]+) +-> (.+)$", re.MULTILINE)


def diagram(comment: str) -> dict[str, frozenset[str]]:
    moves = ((match[1], match[2]) for match in _MOVE.finditer(comment))
    return {state: frozenset() if to == "(terminal)" else frozenset(to.split(" | ")) for state, to in moves}


def diagram_problems(states: Element, transitions: Mapping[InferenceState, frozenset[InferenceState]]) -> list[str]:
    drawn = diagram(states.comment)
    table = {state.name: frozenset(to.name for to in moves) for state, moves in transitions.items()}
    return sorted(
        f"{state}: {sorted(drawn.get(state, ()))} is not {sorted(table.get(state, ()))}"
        for state in drawn.keys() | table.keys()
        if drawn.get(state) != table.get(state)
    )


def screaming(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).upper()


def enum_problems(enum: Element, ours: type[IntEnum]) -> list[str]:
    """How our enum differs from that of the contract; UNSPECIFIED it has only where that means something to us."""
    prefix = screaming(enum.descriptor.name) + "_"
    theirs = {value.name.removeprefix(prefix): value.number for value in enum.descriptor.value}
    own = {"UNSPECIFIED": 0} | {member.name: member.value for member in ours}
    return sorted({name for name, _ in theirs.items() ^ own.items()})


def int_enums(*modules: ModuleType) -> list[type[IntEnum]]:
    return [
        each
        for module in modules
        for each in vars(module).values()
        if isinstance(each, type) and issubclass(each, IntEnum) and each.__module__ == module.__name__
    ]


ENUMS = int_enums(inference, tool, turn)


def test_diagram_is_the_table() -> None:
    assert diagram_problems(load_contract().element("turnwire.v1.InferenceState"), TRANSITIONS) == []


@pytest.mark.parametrize("ours", ENUMS, ids=lambda ours: ours.__name__)
def test_enum_is_that_of_the_contract(ours: type[IntEnum]) -> None:
    assert enum_problems(load_contract().element(f"turnwire.v1.{ours.__name__}"), ours) == []


def test_codes_are_those_of_grpc() -> None:
    assert {code.name: code.value for code in errors.Code} | {"OK": 0} == {
        code.name: code.value[0] for code in StatusCode
    }


def test_gate_for_the_diagram_fails() -> None:
    states = seeded_contract("states").of_kind("enum")[0]
    assert diagram_problems(states, TRANSITIONS) == ["FAILED: ['QUEUED'] is not []"]


def test_gate_for_a_missing_diagram_fails() -> None:
    assert len(diagram_problems(Element("enum", "x", " Nothing is drawn here.\n", None), TRANSITIONS)) == len(
        TRANSITIONS
    )


def test_gate_for_enums_fails() -> None:
    states = seeded_contract("states").of_kind("enum")[0]
    found = enum_problems(states, InferenceState)
    assert {"BUSY", "QUEUED", "RUNNING"} <= set(found)
    assert "UNSPECIFIED" not in found

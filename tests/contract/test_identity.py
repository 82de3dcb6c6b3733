"""The identity rule: session_id and inference_id are the only fields whose name ends in `_id`."""

import re

import pytest

from support.proto_docs import Element, load_contract
from support.seeded import seeded_contract
from support.words import forbidden_words

IDENTITIES = ("session_id", "inference_id")

# `turn_id`, `turn_ids`, and `turnId`, which a lint rule would have to be switched off for.
_IDENTITY = re.compile(r"(_ids?|[a-z]I[dD]s?)$")

MESSAGES = load_contract().of_kind("message")


def problems(message: Element) -> list[str]:
    names = [field.name for field in message.descriptor.field]
    bad = [name for name in names if _IDENTITY.search(name) and name not in IDENTITIES]
    bad += [name for name in names if forbidden_words(name) and name not in bad]
    return [f"{message.name}.{name}" for name in bad]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message.name)
def test_identity_rule(message: Element) -> None:
    assert problems(message) == []


def test_both_packages_are_walked() -> None:
    names = {message.name for message in MESSAGES}
    assert {"turnwire.v1.Event", "turnwire.testing.v1.Script"} <= names
    assert len(names) > 100


def test_rpcs_events_and_options_have_no_other_identity_either() -> None:
    names = [
        element.name.rpartition(".")[2] for element in load_contract().of_kind("rpc", "oneof", "extension", "value")
    ]
    assert [name for name in names if _IDENTITY.search(name.lower())] == []


def test_gate_fails() -> None:
    found = [problem for message in seeded_contract("identity").of_kind("message") for problem in problems(message)]
    assert found == [
        "seeded.identity.Outer.turn_id",
        "seeded.identity.Outer.Inner.run_ids",
        "seeded.identity.Outer.Inner.callId",
    ]

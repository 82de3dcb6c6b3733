"""Sizes: what the contract says in words is what the server enforces, and a request has no field without a limit."""

import re

import pytest

from support.proto_docs import Contract, is_bounded_kind, load_contract
from support.seeded import seeded_contract
from turnwire_server.domain.event import EVENT_BYTES_MAX
from turnwire_server.events.subscription import DELIVERY_BYTES_AIM, RESPONSE_BYTES_AIM
from turnwire_server.wire.turn import BLOCK_BYTES_MAX

MEBIBYTE = 1024 * 1024
REQUEST_BYTES_MAX = 4 * MEBIBYTE
_UNITS = {"KiB": 1024, "MiB": MEBIBYTE}

# Rules that limit the size of what they are about; `pattern` does where its repetitions end, as all of ours do.
LIMITS = {"maxLen", "maxBytes", "maxItems", "maxPairs", "pattern", "in", "len", "const"}


def sizes(comment: str) -> list[int]:
    """Every size that a comment names, in bytes."""
    return [int(number) * _UNITS[unit] for number, unit in re.findall(r"(\d+) ([KM]iB)", comment)]


def request_fields(contract: Contract) -> list[str]:
    """The full names of all fields that can be in a request and can have any size."""
    messages = {message.name: message.descriptor for message in contract.of_kind("message")}
    todo = [name for name in messages if name.endswith("Request")]
    seen: set[str] = set()
    found: list[str] = []
    while todo:
        name = todo.pop()
        if name in seen or name not in messages:
            continue
        seen.add(name)
        for field in messages[name].field:
            todo.append(field.type_name.removeprefix("."))
            if is_bounded_kind(field):
                found.append(f"{name}.{field.name}")
    return sorted(found)


def unbounded(contract: Contract) -> list[str]:
    def has_limit(rules: object) -> bool:
        return isinstance(rules, dict) and any(key in LIMITS or has_limit(value) for key, value in rules.items())

    return [name for name in request_fields(contract) if not has_limit(contract.rules[name])]


@pytest.mark.parametrize(
    ("element", "size"),
    [("turnwire.v1.Event", EVENT_BYTES_MAX), ("turnwire.v1.Block", BLOCK_BYTES_MAX)],
)
def test_words_are_what_is_enforced(element: str, size: int) -> None:
    assert sizes(load_contract().element(element).comment) == [size]


def test_words_of_the_service() -> None:
    comment = load_contract().element("turnwire.v1.InferenceService").comment
    responses = [RESPONSE_BYTES_AIM, DELIVERY_BYTES_AIM, 4 * MEBIBYTE]
    assert sizes(comment) == [REQUEST_BYTES_MAX, EVENT_BYTES_MAX, *responses, 16 * MEBIBYTE]


def test_the_largest_things_fit_in_what_carries_them() -> None:
    # One block per page is promised, and a page is a response.
    assert EVENT_BYTES_MAX < BLOCK_BYTES_MAX < REQUEST_BYTES_MAX - MEBIBYTE // 2


def test_no_single_field_can_pass_a_block() -> None:
    for name, rules in load_contract().rules.items():
        for kind in ("string", "bytes"):
            size = int(rules.get(kind, {}).get("maxBytes" if kind == "string" else "maxLen", 0))
            assert size <= BLOCK_BYTES_MAX, name


def test_every_field_of_a_request_has_a_limit() -> None:
    assert unbounded(load_contract()) == []


def test_gate_fails() -> None:
    assert unbounded(seeded_contract("unbounded")) == [
        "seeded.unbounded.LongRequest.parts",
        "seeded.unbounded.LongRequest.text",
        "seeded.unbounded.Part.content",
    ]

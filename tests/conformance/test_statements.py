"""What the comments of a contract say is split into statements, and what binds is told from what does not."""

import pytest

from support.proto_docs import load_contract
from support.seeded import seeded_contract
from support.statements import Statement, contract_statements, normative, normative_of, sentences, statements_of

FILE = "statements.proto"

SAID = [
    ("file", FILE, "sentence", "Says things in every form."),
    ("file", FILE, "sentence", "It MUST be split right."),
    ("file", FILE, "item", "Durable: an item. It goes on here."),
    ("file", FILE, "item", "Another: an item."),
    ("message", "Forms", "sentence", "The states, and every move there is:"),
    ("message", "Forms", "line", "A -> B"),
    ("message", "Forms", "line", "B -> (end) or to what the next line says"),
    ("message", "Forms", "sentence", "After a drawing (e.g. Above) comes text of 500 ms."),
    ("message", "Forms", "sentence", "It ends here; `not. Here` as this is code."),
    ("field", "Forms.text", "sentence", "A field."),
    ("field", "Forms.text", "sentence", "0 means 1.5, and (see there) MUST NOT be more."),
    ("enum", "ErrorReason", "sentence", "Reasons."),
    ("value", "ErrorReason.ERROR_REASON_UNSPECIFIED", "sentence", "Never sent."),
    ("value", "ErrorReason.ERROR_REASON_GONE", "sentence", "It is not there."),
    ("value", "ErrorReason.ERROR_REASON_GONE", "sentence", "It was."),
    ("service", "Asks", "sentence", "Asks."),
    ("rpc", "Asks.Ask", "sentence", "Asks, in a table."),
    ("rpc", "Asks.Ask", "row", "a | b"),
    ("rpc", "Asks.Ask", "row", "- | c"),
    ("rpc", "Asks.Ask", "item", "NO_SUCH_THING there is none."),
    ("rpc", "Asks.Ask", "item", "TOO_MANY there are too many."),
]


def seeded_statements() -> list[Statement]:
    return list(statements_of(seeded_contract("statements"), "seeded.statements"))


def test_each_form_is_split() -> None:
    told = [
        (each.kind, each.element.removeprefix("seeded.statements."), each.form, each.text)
        for each in seeded_statements()
    ]
    assert told == SAID


def test_what_binds() -> None:
    bound = [each.text for each in normative_of(seeded_statements(), "seeded.statements")]
    assert bound == [
        "It MUST be split right.",
        "Durable: an item. It goes on here.",
        "0 means 1.5, and (see there) MUST NOT be more.",
        "It is not there.",
        "Asks, in a table.",
        "a | b",
        "- | c",
        "NO_SUCH_THING there is none.",
        "TOO_MANY there are too many.",
    ]


@pytest.mark.parametrize(
    ("says", "is_beginning"),
    [
        ("TOO_MANY there", True),
        ("- TOO_MANY   there are\n too many.", True),
        ("TOO_MANY there are too many. And more", False),
        ("there are too many.", False),
    ],
)
def test_the_beginning_of_a_statement(says: str, is_beginning: bool) -> None:
    assert seeded_statements()[-1].begins_with(says) is is_beginning


def test_a_row_may_have_its_frame() -> None:
    row = next(each for each in seeded_statements() if each.form == "row")
    assert row.begins_with("  | a     | b      |")


def test_sentences_begin_with_code_and_digits() -> None:
    assert sentences("One. `two` comes. 3 follows.\n And `four.Five`, too.") == [
        "One.",
        "`two` comes.",
        "3 follows.",
        "And `four.Five`, too.",
    ]


def test_our_contract_has_its_promises_its_rows_and_its_rpcs() -> None:
    bound = normative()
    assert set(bound) <= set(contract_statements())
    assert sum(each.form == "row" for each in bound) == 36
    promises = [each.text.partition(":")[0] for each in bound if each.kind == "file" and each.form == "item"]
    assert promises == ["Durable", "Ordered", "Unique", "Gapless", "Terminal", "Resumable", "Bounded"]
    rpcs = {each.name for each in load_contract().of_kind("rpc")}
    assert {each.element for each in bound if each.kind == "rpc"} == rpcs

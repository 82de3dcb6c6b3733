"""Violations that follow from the contract itself: of each error of each rpc, of each reason, and of each rpc.

What stands in uncited.txt is left out, since no case could find it.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from google.protobuf.message import Message

from support.citations import UNCITED, load_list
from support.proto_docs import Reason, catalogue, load_contract
from support.statements import Statement, contract_statements
from turnwire.v1.error_reason_pb2 import Error, ErrorReason
from turnwire_conformance.catalogue import REASONS
from violations.exchange import STREAMED, Plant, RefusalError
from violations.kinds import (
    ANY,
    ANY_UNARY,
    accepts,
    answers,
    changes,
    changes_refusal,
    never_answers,
    refuses_otherwise,
)
from violations.streams import rewrites
from violations.violation import Violation, violation

PREFIX = "turnwire.v1.ErrorReason.ERROR_REASON_"

FIRST_TERMINAL_REASON = 100

# An rpc that a server does not know is refused by its transport, which knows nothing of details.
_WITHOUT_DETAILS = {"FEATURE_NOT_IMPLEMENTED"}


def provable(statements: Sequence[Statement]) -> Iterator[Statement]:
    """Yield the statements that a case can cite."""
    listed = load_list(UNCITED)
    excused = {statement for each in listed for statement in each.cited.statements(statements)}
    yield from (each for each in statements if each not in excused)


# --- the errors of each rpc ------------------------------------------------------------------------


def of_errors(statements: Sequence[Statement]) -> Iterator[Violation]:
    """Yield two violations of each error that an rpc lists: another reason, and no refusal at all."""
    for each in provable(statements):
        if each.kind == "rpc" and each.form == "item":
            method, reason = each.element.rpartition(".")[2], each.text.partition(" ")[0]
            breaks = (each.element, each.text)
            name = f"{method}-{reason}"
            yield violation(f"{name}-is-INTERNAL", breaks, refuses_otherwise(method, reason, "INTERNAL"))
            yield violation(f"{name}-is-accepted", breaks, accepts(method, reason))


# --- the reasons of the catalogue -------------------------------------------------------------------


def of_reasons(statements: Sequence[Statement], reasons: Sequence[Reason]) -> Iterator[Violation]:
    """Yield violations of each reason: another code, and what lacks of its details; or another reason."""
    first = _first_sentences(statements)
    due = set(provable(list(first.values())))
    for reason in reasons:
        statement = first[f"{PREFIX}{reason.name}"]
        if statement not in due or reason.name in _WITHOUT_DETAILS:
            continue
        breaks = (statement.element, statement.text)
        if reason.number < FIRST_TERMINAL_REASON:
            for what, plant in _otherwise_refused(reason):
                yield violation(f"{reason.name}-{what}", breaks, plant)
        else:
            yield violation(f"{reason.name}-is-told-as-another-reason", breaks, *_told_as(reason.name))


def _first_sentences(statements: Iterable[Statement]) -> dict[str, Statement]:
    found: dict[str, Statement] = {}
    for each in statements:
        found.setdefault(each.element, each)
    return found


def _otherwise_refused(reason: Reason) -> Iterator[tuple[str, Plant]]:
    def other_code(refusal: RefusalError) -> None:
        refusal.code = "UNKNOWN"

    def no_retry(refusal: RefusalError) -> None:
        refusal.retry_seconds = None

    yield "has-another-code", changes_refusal(ANY, reason.name, other_code)
    if REASONS[reason.name].has_retry_info:
        yield "has-no-RetryInfo", changes_refusal(ANY, reason.name, no_retry)
    for key in reason.metadata:
        yield f"lacks-{key}", changes_refusal(ANY, reason.name, _lacking(key))


def _lacking(key: str) -> Callable[[RefusalError], None]:
    def edit(refusal: RefusalError) -> None:
        refusal.metadata.pop(key, None)

    return edit


def _told_as(name: str) -> Sequence[Plant]:
    """Return plants that tell of another reason, wherever an inference that ended with that one is told of."""
    number = ErrorReason.Value(f"ERROR_REASON_{name}")
    is_lost = number == ErrorReason.ERROR_REASON_ATTEMPT_LOST
    other = ErrorReason.ERROR_REASON_ENGINE_FAILED if is_lost else ErrorReason.ERROR_REASON_ATTEMPT_LOST

    def edit(_: Any, response: Any) -> None:
        for error in errors_in(response):
            if error.reason == number:
                error.reason = other

    return changes(ANY_UNARY, edit), rewrites(edit)


def errors_in(message: Message) -> Iterator[Error]:
    """Yield every Error in a message, at any depth."""
    if isinstance(message, Error):
        yield message
        return
    for field, value in message.ListFields():
        if field.message_type is None or field.message_type.GetOptions().map_entry:
            continue
        for each in value if field.is_repeated else (value,):
            yield from errors_in(each)


# --- each rpc ---------------------------------------------------------------------------------------


def of_rpcs(statements: Sequence[Statement]) -> Iterator[Violation]:
    """Yield violations of what each rpc says first: no answer, and an answer without doing anything."""
    first = _first_sentences(each for each in statements if each.kind == "rpc")
    for each in provable(list(first.values())):
        method, breaks = each.element.rpartition(".")[2], (each.element, each.text)
        yield violation(f"{method}-never-answers", breaks, never_answers(method))
        if method != STREAMED:
            yield violation(f"{method}-does-nothing", breaks, answers(method))


_STATEMENTS = contract_statements()

VIOLATIONS = [
    *of_errors(_STATEMENTS),
    *of_reasons(_STATEMENTS, list(catalogue(load_contract()).values())),
    *of_rpcs(_STATEMENTS),
]

"""The comments are the specification: everything has one, and they keep the form that readers and tests rely on."""

import re

import pytest

from support.proto_docs import Contract, Element, catalogue, load_contract, rpc_errors, service_errors
from support.seeded import seeded_contract

CONTRACT = load_contract()
REASONS = catalogue(CONTRACT)

# What ends an accepted inference is never the status of an rpc.
FIRST_TERMINAL_REASON = 100

_LOOSE = re.compile(r"\b(must|shall|mustn't)\b")
_ABSENCE = re.compile(r"\b([Aa]bsent|[Nn]ot set|[Ii]f set|[Pp]resent only|[Ww]hen set)\b")


def undocumented(contract: Contract) -> list[str]:
    return [element.name for element in contract.elements() if not element.comment.strip()]


def loose(contract: Contract) -> list[str]:
    """What says `must` and does not say whether it means MUST."""
    return [element.name for element in contract.elements() if _LOOSE.search(element.comment)]


def silent_about_absence(contract: Contract) -> list[str]:
    """Optional scalars of which neither they nor their message say what their absence means."""
    messages = {message.name: message.comment for message in contract.of_kind("message")}
    return [
        field.name
        for field in contract.of_kind("field")
        if field.descriptor.proto3_optional
        and not _ABSENCE.search(field.comment + messages[field.name.rpartition(".")[0]])
    ]


def error_problems(rpc: Element, common: list[str]) -> list[str]:
    """What is wrong with the "Errors:" list of an rpc, whose service has some errors in common."""
    listed = rpc_errors(rpc.comment)
    if not listed:
        return ["no Errors: list"]
    unknown = [f"{reason} is not in the catalogue" for reason in listed if reason not in REASONS]
    terminal = [
        f"{reason} ends accepted inferences"
        for reason in listed
        if reason in REASONS and REASONS[reason].number >= FIRST_TERMINAL_REASON
    ]
    twice = [f"{reason} is listed twice" for reason in dict.fromkeys(listed) if (listed + common).count(reason) > 1]
    return unknown + terminal + twice


def common_errors(contract: Contract, rpc: Element) -> list[str]:
    return service_errors(contract.element(rpc.name.rpartition(".")[0]).comment)


def test_everything_is_documented() -> None:
    assert undocumented(CONTRACT) == []


def test_must_is_written_in_capitals() -> None:
    assert loose(CONTRACT) == []


def test_absence_is_documented() -> None:
    assert silent_about_absence(CONTRACT) == []


@pytest.mark.parametrize("rpc", CONTRACT.of_kind("rpc"), ids=lambda rpc: rpc.name)
def test_rpc_lists_its_errors(rpc: Element) -> None:
    assert error_problems(rpc, common_errors(CONTRACT, rpc)) == []


@pytest.mark.parametrize("service", CONTRACT.of_kind("service"), ids=lambda service: service.name)
def test_service_lists_the_errors_of_all_its_rpcs(service: Element) -> None:
    reasons = service_errors(service.comment)
    assert {"MALFORMED_MESSAGE", "INVALID_FIELD", "REQUEST_TOO_LARGE", "INTERNAL"} <= set(reasons) <= set(REASONS)


def test_every_reason_is_listed_where_it_is_sent() -> None:
    """A reason of the first plane that no rpc lists would be one that nobody can meet, or that nobody is told of."""
    listed = {reason for rpc in CONTRACT.of_kind("rpc") for reason in rpc_errors(rpc.comment)}
    listed |= {reason for service in CONTRACT.of_kind("service") for reason in service_errors(service.comment)}
    first_plane = {reason.name for reason in REASONS.values() if reason.number < FIRST_TERMINAL_REASON}
    assert first_plane - listed == set()


def test_the_seven_promises_have_their_names() -> None:
    event = next(file for file in CONTRACT.files if file.name == "turnwire/v1/event.proto")
    syntax = next(location for location in event.source_code_info.location if list(location.path) == [12])
    promises = re.findall(r"^   - ([A-Z][a-z]+): ", syntax.leading_comments, re.MULTILINE)
    assert promises == ["Durable", "Ordered", "Unique", "Gapless", "Terminal", "Resumable", "Bounded"]


def test_gate_for_documentation_fails() -> None:
    assert undocumented(seeded_contract("prose")) == [
        "seeded.prose.Silent",
        "seeded.prose.Silent.silent",
        "seeded.prose.Silent.choice",
        "seeded.prose.Mute",
        "seeded.prose.Mute.MUTE_UNSPECIFIED",
        "seeded.prose.Undocumented.NoComment",
    ]


def test_gate_for_must_fails() -> None:
    assert loose(seeded_contract("prose")) == ["seeded.prose.Silent.loose"]


def test_gate_for_absence_fails() -> None:
    assert silent_about_absence(seeded_contract("prose")) == ["seeded.prose.Silent.number"]


def test_gate_for_errors_fails() -> None:
    seeded = seeded_contract("prose")
    found = {rpc.name.rpartition(".")[2]: error_problems(rpc, []) for rpc in seeded.of_kind("rpc")}
    assert found == {
        "NoComment": ["no Errors: list"],
        "NoErrors": ["no Errors: list"],
        "UnknownError": ["NO_SUCH_REASON is not in the catalogue"],
        "WrongPlane": ["ATTEMPT_LOST ends accepted inferences"],
        "Repeats": ["EMPTY_TURN is listed twice"],
    }

"""One catalogue of errors: error_reason.proto == domain errors == the server's status table == the client's table."""

from collections.abc import Iterator, Mapping

import pytest
from google.rpc import error_details_pb2
from grpc import StatusCode

from support.proto_docs import Contract, Reason, catalogue, load_contract
from support.seeded import seeded_contract
from turnwire_client._errors import ERRORS as CLIENT_ERRORS
from turnwire_server.domain import errors as domain
from turnwire_server.rpc.status import to_status

CATALOGUE = catalogue(load_contract())

# Reasons from this number on end accepted inferences.
FIRST_TERMINAL_REASON = 100


def reasons_of(contract: Contract) -> set[str]:
    values = contract.of_kind("value")
    return {
        value.descriptor.name.removeprefix("ERROR_REASON_")
        for value in values
        if ".ErrorReason." in value.name and value.descriptor.number
    }


def leaves(cls: type[domain.TurnwireError]) -> Iterator[type[domain.TurnwireError]]:
    subclasses = cls.__subclasses__()
    for subclass in subclasses:
        yield from leaves(subclass)
    if not subclasses:
        yield cls


DOMAIN = {cls.reason: cls for cls in leaves(domain.TurnwireError)}


def example(cls: type[domain.TurnwireError]) -> domain.TurnwireError:
    """An error of that class, with metadata."""
    if cls is domain.InvalidFieldError:
        return domain.InvalidFieldError(
            domain.Violation("input[2].tool_call.args", "must be one JSON object", "json_object")
        )
    return cls(**{key: f"the {key}" for key in cls.keys})


def domain_problems(reasons: Mapping[str, Reason], classes: Mapping[str, type[domain.TurnwireError]]) -> list[str]:
    found = [f"{name} has no class" for name in reasons.keys() - classes.keys()]
    found += [f"{name} is not in the catalogue" for name in classes.keys() - reasons.keys()]
    for name in sorted(reasons.keys() & classes.keys()):
        reason, cls = reasons[name], classes[name]
        plane = domain.InferenceError if reason.number >= FIRST_TERMINAL_REASON else domain.RequestError
        waits = reason.retry == "after RetryInfo"
        found += [
            f"{name}: {what}"
            for what, is_equal in {
                "code": reason.code == cls.code.name,
                "metadata": reason.metadata == cls.keys,
                "plane": issubclass(cls, plane),
                "retry": waits is (cls.retry_delay_seconds is not None),
            }.items()
            if not is_equal
        ]
    return sorted(found)


def status_problems(reason: Reason) -> list[str]:
    """What the status of an error of the first plane says otherwise than the catalogue."""
    error = example(DOMAIN[reason.name])
    status = to_status(error)
    details = {any_.TypeName(): any_ for any_ in status.details}
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    has_info = "google.rpc.ErrorInfo" in details and details["google.rpc.ErrorInfo"].Unpack(info)
    has_retry = "google.rpc.RetryInfo" in details and details["google.rpc.RetryInfo"].Unpack(retry)
    is_equal = {
        "code": status.code == domain.Code[reason.code],
        "message": status.message == error.message != "",
        "info": has_info and (info.reason, info.domain) == (reason.name, "turnwire"),
        "metadata": info.metadata == error.metadata and tuple(error.metadata) == reason.metadata,
        "retry": has_retry is (reason.retry == "after RetryInfo")
        and (not has_retry or retry.retry_delay.ToNanoseconds() > 0),
        "bad request": ("google.rpc.BadRequest" in details) is (reason.name == "INVALID_FIELD"),
        "other details": len(details) == len(status.details) <= 2,
    }
    return [f"{reason.name}: {what}" for what, equal in is_equal.items() if not equal]


def client_problems(reasons: Mapping[str, Reason]) -> list[str]:
    found = [f"{name} has no class" for name in reasons.keys() - CLIENT_ERRORS.keys()]
    found += [f"{name} is not in the catalogue" for name in CLIENT_ERRORS.keys() - reasons.keys()]
    for name in sorted(reasons.keys() & CLIENT_ERRORS.keys()):
        reason, cls = reasons[name], CLIENT_ERRORS[name]
        found += [
            f"{name}: {what}"
            for what, is_equal in {
                "reason": cls.reason == name,
                "code": cls.code is StatusCode[reason.code],
                "definite": cls.definite is (reason.definite == "yes"),
                "retry": cls.retry.value == reason.retry,
                "metadata": tuple(cls.metadata_keys) == reason.metadata,
            }.items()
            if not is_equal
        ]
    return sorted(found)


def test_every_reason_says_its_lines() -> None:
    assert reasons_of(load_contract()) == CATALOGUE.keys()


def test_domain_is_the_catalogue() -> None:
    assert domain_problems(CATALOGUE, DOMAIN) == []


@pytest.mark.parametrize(
    "reason",
    [each for each in CATALOGUE.values() if each.number < FIRST_TERMINAL_REASON],
    ids=lambda reason: reason.name,
)
def test_status_table_is_the_catalogue(reason: Reason) -> None:
    assert status_problems(reason) == []


def test_status_carries_the_violations() -> None:
    bad_request = error_details_pb2.BadRequest()
    assert any(detail.Unpack(bad_request) for detail in to_status(example(domain.InvalidFieldError)).details)
    assert [(each.field, each.description) for each in bad_request.field_violations] == [
        ("input[2].tool_call.args", "must be one JSON object")
    ]


def test_client_table_is_the_catalogue() -> None:
    assert client_problems(CATALOGUE) == []


def test_client_gives_each_reason_a_class_of_its_own() -> None:
    assert len(set(CLIENT_ERRORS.values())) == len(CATALOGUE)


def test_gate_for_the_form_fails() -> None:
    seeded = seeded_contract("errors")
    assert reasons_of(seeded) - catalogue(seeded).keys() == {"MUMBLED"}


def test_gate_for_the_domain_fails() -> None:
    seeded = catalogue(seeded_contract("errors"))
    known = {name: cls for name, cls in DOMAIN.items() if name in seeded} | {"INTERNAL": domain.InternalError}
    assert domain_problems(seeded, known) == [
        "INFERENCE_NOT_FOUND: metadata",
        "INTERNAL is not in the catalogue",
        "NEVER_HEARD_OF has no class",
        "QUEUE_FULL: retry",
        "SESSION_NOT_FOUND: code",
    ]


def test_gate_for_the_status_table_fails() -> None:
    seeded = catalogue(seeded_contract("errors"))
    found = [problem for name, reason in seeded.items() if name in DOMAIN for problem in status_problems(reason)]
    assert found == ["SESSION_NOT_FOUND: code", "INFERENCE_NOT_FOUND: metadata", "QUEUE_FULL: retry"]


def test_gate_for_the_client_fails() -> None:
    found = client_problems(catalogue(seeded_contract("errors")))
    assert {
        "NEVER_HEARD_OF has no class",
        "INTERNAL is not in the catalogue",
        "SESSION_NOT_FOUND: code",
        "INFERENCE_NOT_FOUND: metadata",
        "QUEUE_FULL: retry",
        "DRAINING: definite",
    } <= set(found)

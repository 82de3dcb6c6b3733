"""The catalogue, the tree of exceptions and the way from one to the other."""

import re
from pathlib import Path

import grpc
import pytest
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from turnwire.v1.error_reason_pb2 import Error, ErrorReason
from turnwire_client import Result, errors
from turnwire_client._status import from_error, from_rpc_error, is_transient

CATALOGUE = Path(__file__).resolve().parents[3] / "proto/turnwire/v1/error_reason.proto"

ENTRY = re.compile(
    r"Code: (?P<code>\w+)\.\s+Definite: (?P<definite>\w+)\.\s+Retry: (?P<retry>[\w ]+)\.\s+"
    r"Metadata: (?P<metadata>[^.]+)\.\s+ERROR_REASON_(?P<reason>\w+) ="
)


def catalogue() -> dict[str, tuple[str, bool, str, tuple[str, ...]]]:
    text = re.sub(r"\n\s*//\s?", "\n", CATALOGUE.read_text())
    return {
        found["reason"]: (
            found["code"],
            found["definite"] == "yes",
            found["retry"],
            () if found["metadata"] == "none" else tuple(re.split(r",\s+", found["metadata"])),
        )
        for found in ENTRY.finditer(text)
    }


def rpc_error(code: grpc.StatusCode, *details: object, message: str = "no") -> grpc.aio.AioRpcError:
    status = Status(code=code.value[0], message=message)
    for detail in details:
        status.details.add().Pack(detail)
    trailing = grpc.aio.Metadata(("grpc-status-details-bin", status.SerializeToString()))
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailing, details=message)


def test_every_reason_has_its_class_with_the_catalogue_s_line() -> None:
    ours = {
        reason: (error.code.name, error.definite, error.retry.value, error.metadata_keys)
        for reason, error in errors.ERRORS.items()
    }
    assert ours == catalogue()
    assert {f"ERROR_REASON_{reason}" for reason in ours} == set(ErrorReason.keys()) - {"ERROR_REASON_UNSPECIFIED"}


@pytest.mark.parametrize("reason", errors.ERRORS)
def test_a_reason_becomes_its_class(reason: str) -> None:
    kind = errors.ERRORS[reason]
    metadata = dict.fromkeys(kind.metadata_keys, "v")
    if issubclass(kind, errors.RequestError):
        info = ErrorInfo(reason=reason, domain="turnwire", metadata=metadata)
        found = from_rpc_error(rpc_error(kind.code, info))
    else:
        number = ErrorReason.Value(f"ERROR_REASON_{reason}")
        error = Error(reason=number, code=kind.code.value[0], message="no", metadata=metadata)
        found = from_error(error, Result(None, None))
    assert type(found) is kind
    assert (found.reason, found.code, found.metadata, found.message) == (reason, kind.code, metadata, "no")
    assert kind.__name__ == "".join(word.capitalize() for word in reason.split("_")) + "Error"
    assert str(found) == f"{reason}: no"


def test_an_unknown_reason_is_treated_by_its_code() -> None:
    info = ErrorInfo(reason="OF_TOMORROW", domain="turnwire", metadata={"a": "b"})
    found = from_rpc_error(rpc_error(grpc.StatusCode.FAILED_PRECONDITION, info))
    assert type(found) is errors.FailedPreconditionError
    assert (found.reason, found.metadata, found.definite) == ("OF_TOMORROW", {"a": "b"}, True)

    failed = from_error(Error(reason=999, code=14, message="no"), Result(None, None))
    assert type(failed) is errors.InferenceFailedError
    assert (failed.reason, failed.code) == ("999", grpc.StatusCode.UNAVAILABLE)


def test_details_become_attributes() -> None:
    retry = RetryInfo()
    retry.retry_delay.FromMilliseconds(1500)
    bad = BadRequest(field_violations=[BadRequest.FieldViolation(field="input[0]", description="too long")])
    info = ErrorInfo(reason="INVALID_FIELD", domain="turnwire")
    found = from_rpc_error(rpc_error(grpc.StatusCode.INVALID_ARGUMENT, info, retry, bad))
    assert found.retry_delay == 1.5
    assert found.violations == (errors.Violation("input[0]", "too long"),)
    assert str(found) == "INVALID_FIELD: no\n  input[0]: too long"
    assert str(errors.InvalidFieldError("input[0]: too long", violations=found.violations)).count("too long") == 1


def test_a_status_of_somebody_else_has_no_reason() -> None:
    foreign = ErrorInfo(reason="SESSION_BUSY", domain="example.com")
    assert from_rpc_error(rpc_error(grpc.StatusCode.ABORTED, foreign)).reason == ""
    garbled = grpc.aio.Metadata(("grpc-status-details-bin", b"\xff\xff"))
    error = grpc.aio.AioRpcError(grpc.StatusCode.DATA_LOSS, grpc.aio.Metadata(), garbled, details="?")
    assert type(from_rpc_error(error)) is errors.RequestError


@pytest.mark.parametrize("code", list(grpc.StatusCode))
def test_what_was_made_on_the_way_is_tried_again(code: grpc.StatusCode) -> None:
    on_the_way = {"UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED", "INTERNAL", "UNKNOWN"}
    assert is_transient(from_rpc_error(rpc_error(code))) is (code.name in on_the_way)


@pytest.mark.parametrize("reason", errors.ERRORS)
def test_what_the_server_says_is_tried_again_only_if_it_says_so(reason: str) -> None:
    kind = errors.ERRORS[reason]
    if issubclass(kind, errors.RequestError):
        found = from_rpc_error(rpc_error(kind.code, ErrorInfo(reason=reason, domain="turnwire")))
        assert is_transient(found) is (reason in {"DRAINING", "STORE_UNAVAILABLE"})


def test_the_tree_is_drawn_as_it_is() -> None:
    from turnwire_client import _errors

    drawn = re.sub(r"(\w+)-(?=,)", r"\1Error", _errors.__doc__ or "")
    for name in errors.__all__:
        kind = getattr(errors, name)
        if isinstance(kind, type) and issubclass(kind, Exception) and kind is not errors.CataloguedError:
            assert re.search(rf"\b{name}\b", drawn), name

"""What a server may answer to a request, whatever the request is.

Raises AssertionError for what it must not: INTERNAL and UNKNOWN, an error without a reason of the catalogue, one that
the rpc does not list, words of Python, an answer that is late, an error in its log.
"""

import re
from collections.abc import Iterable
from typing import Any

import grpc
import protovalidate
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

from fuzz.caller import Answer, Attempt
from fuzz.rpcs import Rpc, is_path_of, reasons
from support import server_log

REQUEST_BYTES_MAX = 4 * 1024 * 1024
TRANSPORT_BYTES_MAX = 16 * 1024 * 1024
RESPONSE_BYTES_MAX = 4 * 1024 * 1024

# Headers of more bytes than this may be refused by the transport itself.
HEADER_BYTES_MAX = 8 * 1024

_VIOLATIONS_MAX = 8
_TEXT_BYTES_MAX = 128
_PYTHON = re.compile(r'Traceback|File "| object at 0x|<class \'|\b[A-Z][A-Za-z]*(?:Error|Exception)\b|\bNoneType\b')

_validator = protovalidate.Validator()


def check_answer(attempt: Attempt, request: bytes, answer: Answer) -> None:
    """Check what came back for a request that was sent as `request`."""
    is_late = answer.code is grpc.StatusCode.DEADLINE_EXCEEDED and not attempt.seconds
    assert not is_late, f"{attempt.rpc.name}: no answer in time, also when it was asked again"
    for response in answer.responses:
        assert len(response) <= RESPONSE_BYTES_MAX, f"a response of {len(response)} bytes"
        attempt.rpc.response_type.FromString(response)
        assert b"Traceback (most" not in response, "a response with a traceback"
    if answer.code is grpc.StatusCode.OK:
        _check_accepted(attempt.rpc, request)
    elif not _is_of_transport(attempt, request, answer):
        _check_refused(attempt.rpc, request, answer)


def _check_accepted(rpc: Rpc, request: bytes) -> None:
    assert len(request) <= REQUEST_BYTES_MAX, f"{len(request)} bytes were accepted"
    parsed = _parse(rpc, request)
    assert parsed is not None, "bytes that are no request were accepted"
    broken = _broken_rules(parsed)
    assert not broken, f"a request was accepted that breaks rules: {broken}"


def _is_of_transport(attempt: Attempt, request: bytes, answer: Answer) -> bool:
    """Whether the contract says, or the protocol below it, that the transport gives this answer by itself."""
    if answer.code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return attempt.seconds > 0
    if answer.code is grpc.StatusCode.RESOURCE_EXHAUSTED and answer.details is None:
        header_bytes = sum(len(key) + len(value) + 32 for key, value in attempt.headers)
        return len(request) > TRANSPORT_BYTES_MAX or header_bytes > HEADER_BYTES_MAX
    return False


def _check_refused(rpc: Rpc, request: bytes, answer: Answer) -> None:
    told = f"{answer.code.name}: {answer.message}"
    unknown = (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN)
    assert answer.code not in unknown, told
    assert answer.details is not None, f"no details: {told}"
    status = status_pb2.Status.FromString(answer.details)
    assert (status.code, status.message) == (answer.code.value[0], answer.message), f"{status} is not {told}"
    info = _detail(status, error_details_pb2.ErrorInfo())
    assert info is not None, f"no ErrorInfo: {told}"
    assert info.domain == "turnwire", f"of the domain {info.domain!r}: {told}"
    reason = reasons().get(info.reason)
    assert reason is not None, f"the catalogue has no {info.reason}"
    assert reason.code == answer.code.name, f"{info.reason} with {told}"
    assert info.reason in rpc.reasons, f"{rpc.name} does not say that it may fail with {info.reason}"
    assert set(info.metadata) == set(reason.metadata), f"{info.reason} with metadata {dict(info.metadata)}"
    assert answer.message, f"{info.reason} without a message"
    _check_words((answer.message, *info.metadata.values()))
    has_delay = _detail(status, error_details_pb2.RetryInfo()) is not None
    assert has_delay == (reason.retry == "after RetryInfo"), f"RetryInfo of {info.reason}: {has_delay}"
    _check_violations(rpc, status, info.reason)
    _check_reading(rpc, request, info.reason)


def _check_violations(rpc: Rpc, status: status_pb2.Status, reason: str) -> None:
    bad_request = _detail(status, error_details_pb2.BadRequest())
    assert (bad_request is not None) == (reason == "INVALID_FIELD"), (
        f"BadRequest in {reason}: {bad_request is not None}"
    )
    if bad_request is None:
        return
    violations = bad_request.field_violations
    assert 1 <= len(violations) <= _VIOLATIONS_MAX, f"{len(violations)} violations"
    for each in violations:
        is_cut = len(each.field.encode()) >= _TEXT_BYTES_MAX - 3
        assert is_cut or is_path_of(rpc.method.input_type, each.field), f"{rpc.name} has no field {each.field!r}"
        assert each.description, f"nothing is said of {each.field}"
        assert each.reason, f"no rule is named for {each.field}"
        _check_words((each.description, each.reason))


def _check_reading(rpc: Rpc, request: bytes, reason: str) -> None:
    """Check that a request was refused for the first thing that is wrong with it."""
    is_large = len(request) > REQUEST_BYTES_MAX
    assert is_large == (reason == "REQUEST_TOO_LARGE"), f"{reason} for {len(request)} bytes"
    if is_large:
        return
    parsed = _parse(rpc, request)
    assert (parsed is None) == (reason == "MALFORMED_MESSAGE"), (
        f"{reason} for bytes that are a request: {parsed is not None}"
    )
    if parsed is not None and reason != "INVALID_FIELD":
        broken = _broken_rules(parsed)
        assert not broken, f"{reason} before the rules: {broken}"


def _parse(rpc: Rpc, request: bytes) -> Message | None:
    try:
        return rpc.request_type.FromString(request)
    except DecodeError:
        return None


def _broken_rules(request: Message) -> list[str]:
    found = _validator.collect_violations(request, fail_fast=True)
    return [f"{each.proto.rule_id}: {each.proto.message}" for each in found]


def _detail(status: status_pb2.Status, kind: Any) -> Any:
    return next((kind for packed in status.details if packed.Unpack(kind)), None)


def _check_words(said: Iterable[str]) -> None:
    for text in said:
        found = _PYTHON.search(text)
        assert not found, f"a message with words of Python: {text!r}"


def check_log(lines: Iterable[str]) -> None:
    """Check lines that a server has logged. Raises AssertionError."""
    server_log.check_log(lines, _is_of_grpc)


def _is_of_grpc(told: server_log.Line) -> bool:
    """Whether gRPC itself complains of a header that is no text, and goes on."""
    return str(told["event"]).startswith("Invalid encoding on ")

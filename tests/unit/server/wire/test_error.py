import pytest

from turnwire.v1 import error_reason_pb2 as pb
from turnwire_server.domain.errors import Code, DeadlineExceededError, Failure
from turnwire_server.wire.error import from_proto, to_proto


def test_failure_round_trips() -> None:
    failure = DeadlineExceededError(timeout="5s").failure()
    message = to_proto(failure)
    assert message.reason == pb.ERROR_REASON_DEADLINE_EXCEEDED
    assert (message.code, dict(message.metadata)) == (4, {"timeout": "5s"})
    assert from_proto(message) == failure


def test_a_reason_must_be_in_the_catalogue() -> None:
    with pytest.raises(ValueError, match="ERROR_REASON_NOPE"):
        to_proto(Failure("NOPE", Code.INTERNAL, "x"))

from google.protobuf.duration_pb2 import Duration

from turnwire.v1.inference_service_pb2 import StartInferenceRequest
from turnwire.v1.session_service_pb2 import GetSessionRequest, GetTurnRequest
from turnwire.v1.turn_pb2 import Block, UserBlock
from turnwire_server.wire.fingerprint import fingerprint

EXCLUDE = ("idempotency_key", "timeout")
REQUEST = StartInferenceRequest(session_id="s", input=[Block(user=UserBlock(text="hello"))], idempotency_key="k")


def test_key_and_timeout_do_not_count() -> None:
    other = StartInferenceRequest()
    other.CopyFrom(REQUEST)
    other.idempotency_key = "another"
    other.timeout.CopyFrom(Duration(seconds=5))
    assert fingerprint(other, EXCLUDE) == fingerprint(REQUEST, EXCLUDE)


def test_request_is_not_changed() -> None:
    fingerprint(REQUEST, EXCLUDE)
    assert REQUEST.idempotency_key == "k"


def test_content_counts() -> None:
    other = StartInferenceRequest()
    other.CopyFrom(REQUEST)
    other.input[0].user.text = "hello!"
    assert fingerprint(other, EXCLUDE) != fingerprint(REQUEST, EXCLUDE)


def test_order_of_maps_does_not_count() -> None:
    one = StartInferenceRequest(metadata={f"a.b{number}@v1": "1" for number in range(40)})
    other = StartInferenceRequest(metadata={f"a.b{number}@v1": "1" for number in reversed(range(40))})
    assert fingerprint(one, EXCLUDE) == fingerprint(other, EXCLUDE)


def test_fields_of_a_newer_contract_count() -> None:
    newer = StartInferenceRequest.FromString(REQUEST.SerializeToString() + b"\xa2\x06\x01x")
    assert fingerprint(newer, EXCLUDE) != fingerprint(REQUEST, EXCLUDE)


def test_requests_of_other_types_with_the_same_bytes() -> None:
    """The rpc is part of an idempotency scope and of a page token, so the type need not count here."""
    assert fingerprint(GetSessionRequest(session_id="x"), ()) == fingerprint(GetTurnRequest(inference_id="x"), ())

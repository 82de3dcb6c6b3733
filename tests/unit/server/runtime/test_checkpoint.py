"""Where an inference goes on, as a store keeps it."""

from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta

import pytest

from turnwire_server.domain.inference import FinishClass
from turnwire_server.domain.session import PauseAction
from turnwire_server.domain.tool import ToolError
from turnwire_server.runtime.checkpoint import (
    CallState,
    Checkpoint,
    Next,
    Pause,
    PlannedCall,
    decode_checkpoint,
    decode_outcome,
    encode_checkpoint,
    encode_outcome,
)

NOW = datetime(2026, 1, 1, 12, 0, 0, 123456, tzinfo=UTC)
FULL = Checkpoint(
    Next.TOOLS,
    3,
    (
        PlannedCall("a", "t", CallState.APPROVAL, CallState.CLIENT, is_idempotent=True, args='{"ü":1}'),
        PlannedCall("b", "u", CallState.REFUSED, code="unknown_tool"),
    ),
    FinishClass.MAX_TOKENS,
    1,
    Pause("i.1", "after_inference", "…", NOW, NOW + timedelta(microseconds=1), PauseAction.ABORT),
    is_stepping_over=True,
    answer_time=NOW,
)


def test_nothing_is_the_beginning() -> None:
    assert decode_checkpoint(b"") == Checkpoint()
    assert decode_checkpoint(encode_checkpoint(Checkpoint())) == Checkpoint()


def test_everything_comes_back() -> None:
    assert decode_checkpoint(encode_checkpoint(FULL)) == FULL
    standard = Checkpoint()
    for field in fields(Checkpoint):
        one = replace(standard, **{field.name: getattr(FULL, field.name)})
        assert one != standard
        assert decode_checkpoint(encode_checkpoint(one)) == one


@pytest.mark.parametrize("data", [b"{", b"[]", b'{"next":"dance"}', b'{"calls":[{"id":"a"}]}'])
def test_what_cannot_be_read_is_said(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode_checkpoint(data)


@pytest.mark.parametrize("outcome", ["null", '{"a": "b"}', '"text"', ToolError("broke", "crashed"), ToolError()])
def test_outcomes_come_back(outcome: str | ToolError) -> None:
    assert decode_outcome(encode_outcome(outcome)) == outcome

"""Each promise that a watcher can check, broken once."""

import pytest

from turnwire.v1.event_pb2 import Event, InferenceFinished, LlmDelta
from turnwire.v1.inference_service_pb2 import SubscribeEventsResponse, SubscriptionOpened
from turnwire_client import ProtocolError
from turnwire_client._continuity import Continuity


def event(sequence: int, *, inference: str = "i", session: str = "s", last: bool = False) -> Event:
    made = Event(sequence=sequence, session_id=session, inference_id=inference)
    if last:
        made.inference_finished.CopyFrom(InferenceFinished())
    else:
        made.llm_delta.CopyFrom(LlmDelta(delta="x"))
    return made


def response(after: int, through: int, *events: Event, log: str = "") -> SubscribeEventsResponse:
    opened = SubscriptionOpened(log=log) if log else None
    return SubscribeEventsResponse(after_sequence=after, through_sequence=through, events=events, opened=opened)


OPENED = response(0, 0, log="L")

BROKEN = {
    "no opened": ("s", [response(0, 0)]),
    "opened twice": ("s", [OPENED, OPENED]),
    "a hole between responses": ("i", [OPENED, response(0, 1, event(1)), response(2, 3, event(3))]),
    "a step back": ("i", [OPENED, response(0, 2, event(1), event(2)), response(1, 2, event(2))]),
    "backwards": ("i", [response(5, 4, log="L")]),
    "out of order": ("i", [OPENED, response(0, 2, event(2), event(1))]),
    "the same twice": ("i", [OPENED, response(0, 2, event(1), event(1))]),
    "outside the range": ("i", [OPENED, response(0, 1, event(2))]),
    "a gap without a filter": ("", [OPENED, response(0, 3, event(1), event(3))]),
    "a missing tail without a filter": ("", [OPENED, response(0, 3, event(1), event(2))]),
    "of another session": ("", [OPENED, response(0, 1, event(1, session="other"))]),
    "of another inference": ("i", [OPENED, response(0, 1, event(1, inference="other"))]),
    "after the terminal event": ("i", [OPENED, response(0, 2, event(1, last=True), event(2))]),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_promise_is_noticed(name: str) -> None:
    inference, responses = BROKEN[name]
    seen = Continuity("s", "" if inference == "" else "i", None, "")
    for each in responses[:-1]:
        seen.take(each)
    with pytest.raises(ProtocolError):
        seen.take(responses[-1])


def test_another_log_after_a_resume_is_noticed() -> None:
    seen = Continuity("s", "", None, "")
    seen.take(OPENED)
    seen.reopen()
    with pytest.raises(ProtocolError, match="log"):
        seen.take(response(0, 0, log="M"))


def test_a_whole_stream_is_let_through() -> None:
    seen = Continuity("s", "i", 4, "")
    assert not seen.take(response(4, 4, log="L"))
    assert not seen.take(response(4, 4))
    assert len(seen.take(response(4, 9, event(5), event(9)))) == 2
    assert not seen.take(response(9, 12))
    seen.reopen()
    seen.take(response(12, 13, event(13, last=True), log="L"))
    assert seen.finished
    assert (seen.after_sequence, seen.log) == (13, "L")

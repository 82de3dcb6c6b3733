"""The checker of the promises can fail: each of its assertions has a log or a stream here that only it refuses."""

import ast
import copy
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest

from turnwire.v1 import event_pb2
from turnwire.v1.error_reason_pb2 import ERROR_REASON_ATTEMPT_LOST
from turnwire.v1.inference_pb2 import FINISH_CLASS_COMPLETED, FINISH_CLASS_TOOL_CALLS_PENDING
from turnwire.v1.inference_service_pb2 import SUBSCRIPTION_END_REASON_CAUGHT_UP, SubscribeEventsResponse
from turnwire.v1.tool_pb2 import ToolCall
from turnwire_conformance import promises
from turnwire_conformance.promises import Watch, check_agreement, check_inference, check_log, holding

Event = event_pb2.Event
Log = list[Event]
Responses = list[SubscribeEventsResponse]

FIRST, SECOND = "inference-1", "inference-2"
# A violation begins with the name of what is broken.
PROMISES = {"Durable", "Ordered", "Unique", "Gapless", "Terminal", "Resumable", "Bounded"}

# The places in STORY of what the cases below break.
QUEUED, STARTED, THINKING_START, THINKING_DELTA, THINKING_FINAL = range(5)
TOOL_START, TOOL_DELTA, TOOL_CALL, TOOL_RESULT, TOOL_DONE = range(5, 10)
TEXT_START, TEXT_DELTA, SECOND_DELTA, TEXT_FINAL, CLOSED, FINISHED = range(10, 16)
# The places of the losses in lost_story().
FIRST_LOSS, SECOND_LOSS = 4, 11
STORY: list[tuple[str, dict[str, object]]] = [
    ("", {"inference_queued": {"queue_position": 1}}),
    ("", {"inference_started": {"engine": "scripted"}}),
    ("b1", {"llm_thinking_start": {"role": "assistant"}}),
    ("b1", {"llm_thinking_delta": {"delta": "Hm.", "offset": 0}}),
    ("b1", {"llm_thinking_final": {"text": "Hm.", "text_bytes": 3}}),
    ("call_1", {"tool_start": {"name": "weather"}}),
    ("call_1", {"tool_delta": {"delta": "{}", "offset": 0}}),
    ("call_1", {"tool_call": {"call": {"id": "call_1", "name": "weather", "args": "{}"}}}),
    ("call_1", {"tool_result": {"use": {"tool_call": "call_1", "result": "1"}}}),
    ("call_1", {"tool_done": {}}),
    ("b2", {"llm_start": {"role": "assistant"}}),
    ("b2", {"llm_delta": {"delta": "lä", "offset": 0}}),
    ("b2", {"llm_delta": {"delta": "zy", "offset": 3}}),
    ("b2", {"llm_final": {"text": "läzy", "text_bytes": 5}}),
    ("", {"turn_closed": {"index": 0, "block_count": 3}}),
    ("", {"inference_finished": {"succeeded": {"finish_class": FINISH_CLASS_COMPLETED}, "event_count": 16}}),
]


def story(inference_id: str = FIRST, after: int = 0) -> Log:
    """The events of one inference with nothing wrong."""
    return [
        Event(sequence=sequence, session_id="session", inference_id=inference_id, entity=entity, **payload)  # type: ignore[arg-type]
        for sequence, (entity, payload) in enumerate(STORY, after + 1)
    ]


def lost_story() -> Log:
    """An inference whose first attempt was lost while it thought, and whose second one while it called a tool."""
    first, second, third = story()[:THINKING_FINAL], story()[STARTED:TOOL_CALL], story()[STARTED:]
    return numbered([*first, _loss(after=STARTED + 1), *second, _loss(after=FIRST_LOSS + 2), *third])


def lost_results(holds_through: int) -> Log:
    """An inference whose first attempt was lost after its tools; the second one executed them again."""
    return numbered(
        [*story()[:TEXT_START], _loss(after=holds_through), story()[STARTED], *story()[TOOL_RESULT:]],
    )


def _required(field: str, *calls: str) -> Event:
    event = Event(session_id="session", inference_id=FIRST)
    event.tools_required.SetInParent()
    getattr(event.tools_required, field).extend([ToolCall(id=call, name="weather") for call in calls])
    return event


def _loss(after: int) -> Event:
    event = Event(session_id="session", inference_id=FIRST)
    event.inference_attempt_lost.superseded_after_sequence = after
    return event


def whole_log() -> Log:
    """Two inferences, one after the other."""
    return story() + story(SECOND, after=len(STORY))


def stream(log: Log, inference_id: str = "", after: int = 0) -> Responses:
    """The log as a stream sends it, ten sequences at a time, then a heartbeat, then the end."""
    edges = [*range(after, len(log), 10), len(log), len(log), len(log)]
    responses = [
        SubscribeEventsResponse(
            events=[e for e in log[first:last] if inference_id in {"", e.inference_id}],
            after_sequence=first,
            through_sequence=last,
        )
        for first, last in pairwise(edges)
    ]
    responses[0].opened.log = "log-token"
    responses[0].opened.head_sequence = len(log)
    responses[-1].end.reason = SUBSCRIPTION_END_REASON_CAUGHT_UP
    return copy.deepcopy(responses)


def watched(responses: Responses, inference_id: str = "", watch: Watch | None = None) -> Watch:
    """A watcher that took them all."""
    watch = watch or Watch("session", inference_id)
    watch.begin(responses[0].after_sequence)
    for response in responses:
        watch.take(response)
    return watch


def numbered(log: Log) -> Log:
    """The log with its sequences, and the last event's event_count, made right again."""
    for sequence, event in enumerate(log, 1):
        event.sequence = sequence
    if log[-1].HasField("inference_finished"):
        log[-1].inference_finished.event_count = len(log)
    return log


# --- what nothing is wrong with ------------------------------------------------------------------


def test_a_whole_log_passes() -> None:
    assert check_log(whole_log()) == {FIRST: story(), SECOND: story(SECOND, len(STORY))}


def test_whole_streams_pass() -> None:
    log = whole_log()
    cut = watched(stream(log[:17]))
    watched(stream(log, after=17), watch=cut)
    watches = (watched(stream(log)), watched(stream(log, FIRST), FIRST), watched(stream(log, SECOND), SECOND), cut)
    late = watched(stream(log, after=20))
    check_agreement(log, (*watches, late))
    assert [len(watch.events) for watch in (*watches, late)] == [32, 16, 16, 32, 12]
    assert all(watch.end == SUBSCRIPTION_END_REASON_CAUGHT_UP for watch in watches)


def test_an_event_of_a_newer_server_passes_if_it_may_be_skipped() -> None:
    log = story()
    log.insert(1, Event(session_id="session", inference_id=FIRST, ignorable=True))
    numbered(log)
    check_agreement(log, [watched(stream(log))])
    check_log(log)


def test_a_cancelled_inference_may_leave_a_block_open() -> None:
    log = story()
    del log[TEXT_FINAL]
    log[-1].inference_finished.cancelled.reason = "enough"
    check_inference(numbered(log))


def test_a_call_may_be_cut() -> None:
    log = story()
    del log[TOOL_CALL : TOOL_RESULT + 1]
    check_inference(numbered(log))


def test_calls_may_be_left_to_the_client() -> None:
    log = story()
    del log[TOOL_RESULT]
    log[-1].inference_finished.succeeded.finish_class = FINISH_CLASS_TOOL_CALLS_PENDING
    check_inference(numbered(log))


def test_a_client_may_be_asked_for_a_result_and_for_an_approval_before() -> None:
    log = story()
    for place, field in ((TOOL_RESULT, "approvals"), (TOOL_RESULT + 1, "calls")):
        log.insert(place, _required(field, "call_1"))
    check_inference(numbered(log))


def test_the_calls_of_an_inference_that_ended_early_may_have_no_end() -> None:
    for last in (TOOL_CALL, TOOL_RESULT):
        log = story()[: last + 1] + story()[CLOSED:]
        log[-1].inference_finished.cancelled.reason = "enough"
        check_inference(numbered(log))


def test_an_omitted_text_passes() -> None:
    log = story()
    log[TEXT_FINAL].llm_final.text, log[TEXT_FINAL].llm_final.text_omitted = "", True
    log[TOOL_CALL].tool_call.call.args, log[TOOL_CALL].tool_call.args_omitted = "", True
    check_inference(log)


def test_a_lost_attempt_leaves_no_trace_in_what_holds() -> None:
    log = lost_story()
    assert [place for place, event in enumerate(log) if event.HasField("inference_attempt_lost")] == [
        FIRST_LOSS,
        SECOND_LOSS,
    ]
    assert check_log(log) == {FIRST: log}
    told = [event for event in holding(log) if event.entity]
    assert told == log[-len(told) - 2 : -2], "each entity is told once, by the last attempt"


def test_results_that_are_void_are_told_anew() -> None:
    log = lost_results(holds_through=TOOL_CALL + 1)
    check_inference(log)
    assert [event.sequence for event in holding(log) if event.HasField("tool_result")] == [TEXT_START + 3]


def test_an_inference_may_end_with_its_last_attempt_lost() -> None:
    log = lost_story()[: SECOND_LOSS + 1] + story()[CLOSED:]
    log[-1].inference_finished.failed.error.reason = ERROR_REASON_ATTEMPT_LOST
    check_inference(numbered(log))
    del log[-2]  # as it is before its turn is opened
    check_inference(numbered(log))


def test_the_rest_of_a_log_will_do_for_who_began_there() -> None:
    log = whole_log()
    check_agreement(log[17:], (watched(stream(log, after=20)), watched(stream(log, after=17))))


# --- broken logs of one inference ------------------------------------------------------------------


def _duplicate(log: Log, place: int, behind: int | None = None) -> None:
    log.insert((place if behind is None else behind) + 1, copy.deepcopy(log[place]))


def _move(log: Log, place: int, to: int) -> None:
    log.insert(to, log.pop(place))


def _about(entity: str, event: Event) -> Event:
    other = copy.deepcopy(event)
    other.entity = entity
    return other


def _edit(place: int, payload: str, **fields: object) -> Callable[[Log], None]:
    def change(log: Log) -> None:
        for name, value in fields.items():
            setattr(getattr(log[place], payload), name, value)

    return change


STORIES: dict[str, tuple[str, Callable[[Log], object]]] = {
    "no queued": ("an inference that begins with inference_started", lambda log: log.pop(QUEUED)),
    "no terminal event": ("Terminal: 0 ends", lambda log: log.pop()),
    "second terminal event": ("Terminal: 2 ends", lambda log: _duplicate(log, FINISHED)),
    "event after the terminal one": ("Terminal: turn_closed follows", lambda log: _move(log, CLOSED, FINISHED)),
    "end without outcome": (
        "Terminal: an end that does not say",
        lambda log: log[FINISHED].inference_finished.ClearField("succeeded"),
    ),
    "start twice": ("b2 begins twice", lambda log: _duplicate(log, TEXT_START)),
    "delta before its start": ("llm_delta of b2 before its start", lambda log: log.pop(TEXT_START)),
    "final without start": ("tool_call of call_1 before", lambda log: log.__delitem__(slice(TOOL_START, TOOL_CALL))),
    "delta after the final": ("llm_delta of b2 after", lambda log: _duplicate(log, SECOND_DELTA, TEXT_FINAL)),
    "final twice": ("llm_final of b2 after", lambda log: _duplicate(log, TEXT_FINAL)),
    "offset in characters": ("delta of b2 at 2", _edit(SECOND_DELTA, "llm_delta", offset=2)),
    "delta lost": ("delta of b2 at 3", lambda log: log.pop(TEXT_DELTA)),
    "offset of thinking": ("delta of b1 at 1", _edit(THINKING_DELTA, "llm_thinking_delta", offset=1)),
    "offset of arguments": ("delta of call_1 at 1", _edit(TOOL_DELTA, "tool_delta", offset=1)),
    "empty delta": ("empty delta of b2", _edit(SECOND_DELTA, "llm_delta", delta="")),
    "other final text": ("the final of b2 is not", _edit(TEXT_FINAL, "llm_final", text="lazyy")),
    "other final thinking": ("the final of b1 is not", _edit(THINKING_FINAL, "llm_thinking_final", text="Ha!")),
    "other arguments": ("the final of call_1 is not", lambda log: setattr(log[TOOL_CALL].tool_call.call, "args", "[]")),
    "omitted and there": ("the final of b2 is not", _edit(TEXT_FINAL, "llm_final", text_omitted=True)),
    "text_bytes in characters": ("text_bytes 4 of b2", _edit(TEXT_FINAL, "llm_final", text_bytes=4)),
    "text_bytes of thinking": ("text_bytes 9 of b1", _edit(THINKING_FINAL, "llm_thinking_final", text_bytes=9)),
    "no final": ("no final for {'b2'}", lambda log: log.pop(TEXT_FINAL)),
    "no done": ("no tool_done for {'call_1'}", lambda log: log.pop(TOOL_DONE)),
    "no result": ("no tool_result for {'call_1'}", lambda log: log.pop(TOOL_RESULT)),
    "no call": ("tool_result of call_1, which is no complete call", lambda log: log.pop(TOOL_CALL)),
    "result of a text": (
        "tool_result of b2, which is no complete call",
        lambda log: log.insert(CLOSED, _about("b2", log[TOOL_RESULT])),
    ),
    "result twice": ("a second tool_result of call_1", lambda log: _duplicate(log, TOOL_RESULT)),
    "result of another call": (
        "tool_result of call_1 answers another call",
        lambda log: setattr(log[TOOL_RESULT].tool_result.use, "tool_call", "call_2"),
    ),
    "done twice": ("tool_done of call_1 after its tool_done", lambda log: _duplicate(log, TOOL_DONE)),
    "result after the done": ("tool_result of call_1 after", lambda log: _move(log, TOOL_DONE, TOOL_RESULT)),
    "done without start": (
        "tool_done of call_1 before its start",
        lambda log: log.__delitem__(slice(TOOL_START, TOOL_DONE)),
    ),
    "nothing required": ("tools_required without", lambda log: log.insert(TOOL_RESULT, _required("calls"))),
    "answered and required": (
        "tools_required of {'call_1'}, to which",
        lambda log: log.insert(TOOL_DONE, _required("calls", "call_1")),
    ),
    "done and to be approved": (
        "tools_required of {'call_1'}, to which",
        lambda log: log.insert(TEXT_START, _required("approvals", "call_1")),
    ),
    "required before it is complete": (
        "tools_required of {'call_1'}, to which",
        lambda log: log.insert(TOOL_CALL, _required("calls", "call_1")),
    ),
}


def _superseded(place: int, after: int) -> Callable[[Log], None]:
    return _edit(place, "inference_attempt_lost", superseded_after_sequence=after)


LOSSES: dict[str, tuple[str, Callable[[Log], object]]] = {
    "loss of everything": ("a loss after 0, which is no event", _superseded(FIRST_LOSS, 0)),
    "loss after itself": ("a loss after 5, which is no event", _superseded(FIRST_LOSS, FIRST_LOSS + 1)),
    "loss after what is void": ("a loss after 4, which is no event", _superseded(SECOND_LOSS, FIRST_LOSS)),
    "loss that no start follows": (
        "llm_thinking_start right after a loss",
        lambda log: log.pop(FIRST_LOSS + 1),
    ),
    "two losses in a row": (
        "inference_attempt_lost right after a loss",
        lambda log: _duplicate(log, FIRST_LOSS),
    ),
    "text of what is void goes on": (
        "llm_thinking_delta of b1 before its start",
        lambda log: log.pop(FIRST_LOSS + 2),
    ),
    "what holds begins again": ("b1 begins twice", _superseded(FIRST_LOSS, FIRST_LOSS)),
    "void delta lost": ("delta of call_1 at", _edit(SECOND_LOSS - 1, "tool_delta", offset=2)),
}


def check_broken_story(name: str) -> None:
    log = story()
    STORIES[name][1](log)
    check_log(numbered(log))


def check_broken_loss(name: str) -> None:
    log = lost_story()
    LOSSES[name][1](log)
    check_log(numbered(log))


def check_result_that_holds_and_is_told_anew() -> None:
    check_log(lost_results(holds_through=TOOL_RESULT + 1))


def check_void_result_told_twice() -> None:
    log = lost_results(holds_through=TOOL_CALL + 1)
    _duplicate(log, TOOL_RESULT)
    check_log(numbered(log))


def check_loss_after_an_event_of_another() -> None:
    log = [*story()[: CLOSED + 2], *lost_story()[: FIRST_LOSS + 1], *story()[STARTED:]]
    for event in log[len(STORY) :]:
        event.inference_id = SECOND
    for sequence, event in enumerate(log, 1):
        event.sequence = sequence
    log[-1].inference_finished.event_count = len(log) - len(STORY)
    check_log(log)


def check_wrong_event_count() -> None:
    log = whole_log()
    log[FINISHED].inference_finished.event_count += 1
    check_log(log)


def check_log_gap() -> None:
    log = whole_log()
    del log[SECOND_DELTA]
    check_log(log)


def check_log_duplicate() -> None:
    log = whole_log()
    _duplicate(log, SECOND_DELTA)
    check_log(log)


def check_log_reorder() -> None:
    log = whole_log()
    _move(log, CLOSED, FINISHED)
    check_log(log)


def check_log_late_start() -> None:
    check_log(story(after=1))


# --- broken streams ----------------------------------------------------------------------------------


def _second(responses: Responses, **fields: int) -> None:
    for name, value in fields.items():
        setattr(responses[1], name, value)


def _swap(responses: Responses) -> None:
    events = list(responses[1].events)
    responses[1].ClearField("events")
    responses[1].events.extend([*events[:3], events[4], events[3], *events[5:]])


def _repeat(responses: Responses) -> None:
    events = list(responses[1].events)
    responses[1].ClearField("events")
    responses[1].events.extend([*events[:3], events[2], *events[3:]])


def _lose_tail(responses: Responses) -> None:
    del responses[1].events[-1]


def _make_huge(responses: Responses) -> None:
    responses[1].events[0].llm_delta.delta = "x" * promises.EVENT_BYTES_MAX


def _make_response_huge(responses: Responses) -> None:
    for event in responses[1].events:
        event.log.message = "x" * (promises.RESPONSE_BYTES_MAX // 8)


STREAMS: dict[str, tuple[str, Callable[[Responses], object]]] = {
    "response after the end": ("a response after", lambda all_: all_.append(copy.deepcopy(all_[-2]))),
    "opened missing": ("`opened` is in the first", lambda all_: all_[0].ClearField("opened")),
    "opened twice": ("`opened` is in the first", lambda all_: all_[1].opened.CopyFrom(all_[0].opened)),
    "opened without token": ("`opened` without the token", lambda all_: all_[0].opened.ClearField("log")),
    "after_sequence ahead": ("Gapless: 11 follows 10", lambda all_: _second(all_, after_sequence=11)),
    "after_sequence behind": ("Gapless: 9 follows 10", lambda all_: _second(all_, after_sequence=9)),
    "response lost": ("Gapless: 20 follows 10", lambda all_: all_.pop(1)),
    "response repeated": ("Gapless: 10 follows 20", lambda all_: all_.insert(1, copy.deepcopy(all_[1]))),
    "reaches back": ("Ordered: a response", lambda all_: _second(all_, through_sequence=9)),
    "reaches too far": ("Gapless: 20 is the last up to 21", lambda all_: _second(all_, through_sequence=21)),
    "tail lost": ("Gapless: 19 is the last up to 20", _lose_tail),
    "heartbeat that moves": (
        "Gapless: 32 is the last up to 33",
        lambda all_: setattr(all_[-2], "through_sequence", 33),
    ),
    "end without a reason": ("an `end` without", lambda all_: all_[-1].end.ClearField("reason")),
    "event of another session": (
        "an event of session other",
        lambda all_: setattr(all_[1].events[0], "session_id", "other"),
    ),
    "gap": ("Gapless: event 14 follows 12", lambda all_: all_[1].events.__delitem__(2)),
    "reorder": ("Ordered: a response with", _swap),
    "duplicate": ("Unique: a response with", _repeat),
    "unknown variant": ("an event of no known", lambda all_: all_[1].events[1].ClearField("llm_delta")),
    "huge event": ("Bounded: an event", _make_huge),
    "huge response": ("Bounded: a response", _make_response_huge),
}


def check_broken_stream(name: str) -> None:
    responses = stream(whole_log())
    STREAMS[name][1](responses)
    watched(responses)


def check_filter_leak() -> None:
    watched(stream(whole_log()), SECOND)


def check_filter_beyond() -> None:
    responses = stream(whole_log(), FIRST)
    responses[0].through_sequence = 9
    watched(responses, FIRST)


def check_log_token_change() -> None:
    log = whole_log()
    watch = watched(stream(log[:17]))
    again = stream(log, after=17)
    again[0].opened.log = "another-token"
    watched(again, watch=watch)


def check_cursor_beyond_head() -> None:
    responses = stream(whole_log(), after=20)
    responses[0].opened.head_sequence = 19
    watched(responses)


def check_redelivery_after_a_cut() -> None:
    log = whole_log()
    watched(stream(log, after=16), watch=watched(stream(log[:17])))


# --- watchers that disagree ------------------------------------------------------------------------------


def check_other_bytes() -> None:
    log = whole_log()
    other = copy.deepcopy(log)
    other[20].create_time.seconds = 1
    check_agreement(log, (watched(stream(log)), watched(stream(other))))


def check_seen_and_not_stored() -> None:
    log = whole_log()
    check_agreement(log[:-1], (watched(stream(log)),))


def check_missing_behind_a_filter() -> None:
    log = whole_log()
    responses = stream(log, SECOND)
    del responses[2].events[3]
    check_agreement(log, (watched(responses, SECOND),))


def check_missing_at_the_start_behind_a_filter() -> None:
    log = whole_log()
    responses = stream(log, SECOND)
    del responses[1].events[0]
    check_agreement(log, (watched(responses, SECOND),))


def check_nothing_behind_a_filter() -> None:
    log = whole_log()
    check_agreement(log, (watched(stream(log, "nobody"), SECOND),))


def check_skipped_by_a_resume() -> None:
    log = whole_log()
    check_agreement(log, (watched(stream(log, after=18), watch=watched(stream(log[:17]))),))


OTHERS: dict[Callable[[], None], str] = {
    check_result_that_holds_and_is_told_anew: "a second tool_result of call_1",
    check_void_result_told_twice: "a second tool_result of call_1",
    check_loss_after_an_event_of_another: "a loss after 2, which is no event that holds",
    check_wrong_event_count: "event_count 17 for 16 events",
    check_log_gap: "Gapless: 14 at place 13",
    check_log_duplicate: "Gapless: 13 at place 14",
    check_log_reorder: "Gapless: 16 at place 15",
    check_log_late_start: "Gapless: 2 at place 1",
    check_filter_leak: f"the filter let inference {FIRST} through",
    check_filter_beyond: "10 is beyond through_sequence",
    check_log_token_change: "the log changed under the watcher",
    check_cursor_beyond_head: "the stream begins beyond the head",
    check_redelivery_after_a_cut: "Unique: 17 follows 17",
    check_other_bytes: "Resumable: other bytes at 21",
    check_seen_and_not_stored: "Durable: a watcher got to 32 of 31",
    check_missing_behind_a_filter: "Resumable: a watcher saw",
    check_missing_at_the_start_behind_a_filter: "Resumable: a watcher saw",
    check_nothing_behind_a_filter: r"Resumable: a watcher saw []",
    check_skipped_by_a_resume: "Resumable: a watcher saw",
}

Case = tuple[str, str, Callable[[], None]]


def cases() -> Iterator[Case]:
    """Every broken thing: its name, how the message of the check begins that refuses it, and what runs the check."""
    for name, (message, _) in STORIES.items():
        yield name, message, partial(check_broken_story, name)
    for name, (message, _) in LOSSES.items():
        yield name, message, partial(check_broken_loss, name)
    for name, (message, _) in STREAMS.items():
        yield name, message, partial(check_broken_stream, name)
    for check, message in OTHERS.items():
        yield check.__name__.removeprefix("check_").replace("_", " "), message, check


@pytest.mark.parametrize("case", list(cases()), ids=lambda case: case[0])
def test_what_is_broken_is_refused(case: Case) -> None:
    _, message, check = case
    with pytest.raises(AssertionError) as refused:
        check()
    name, _, said = str(refused.value).partition(": ")
    assert name in PROMISES
    assert f"{name}: {said}".startswith(message) or said.startswith(message)


def test_every_assertion_has_a_case() -> None:
    """An assertion that no case makes fail would be one that nobody knows to work."""
    path = Path(promises.__file__)
    assertions = [node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Assert)]
    failed: set[int] = set()
    for _, _, check in cases():
        with pytest.raises(AssertionError) as refused:
            check()
        failed.add(traceback.extract_tb(refused.value.__traceback__)[-1].lineno or 0)
    silent = [node.lineno for node in assertions if not failed & set(range(node.lineno, (node.end_lineno or 0) + 1))]
    assert assertions
    assert silent == []

"""The fold of a log: folded anywhere and again, it brings a client to the same view, with as few events as may be."""

from collections.abc import Iterable, Sequence

import pytest
from hypothesis import HealthCheck, given, settings

from support.event_logs import EPOCH, SESSION, event_logs
from support.event_view import view_of
from turnwire_server.domain.event import (
    EVENT_BYTES_MAX,
    Cancelled,
    EngineCallStarted,
    Event,
    InferenceAttemptLost,
    InferenceFinished,
    InferenceQueued,
    InferenceStarted,
    LlmDelta,
    LlmFinal,
    LlmStart,
    LlmThinkingDelta,
    LlmThinkingFinal,
    LlmThinkingStart,
    Payload,
    ThinkingMode,
    ThinkingModeCompleted,
    ThinkingModeStarted,
    ThinkingModeUpdate,
    ToolCallCompleted,
    ToolDelta,
    ToolDone,
    ToolStart,
    TurnOpened,
)
from turnwire_server.domain.inference import Usage
from turnwire_server.domain.tool import ToolCall
from turnwire_server.events.log_fold import DELTA_BYTES_MAX, LogFold
from turnwire_server.wire.event import decode_frames, encode_frame

thorough = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


def fold(events: Iterable[Event]) -> list[Event]:
    """Return what stands for a log."""
    folded = LogFold()
    handed_out = [each for event in events for each in folded.take(event)]
    return [*handed_out, *(each for story in folded.unfinished() for each in story)]


@thorough
@given(event_logs())
def test_folded_at_every_cut_and_folded_again_it_is_the_same(log: list[Event]) -> None:
    whole = fold(log)
    for cut in range(len(log) + 1):
        assert fold([*fold(log[:cut]), *log[cut:]]) == whole


@thorough
@given(event_logs())
def test_a_client_that_begins_with_a_snapshot_sees_what_all_events_show(log: list[Event]) -> None:
    expected = view_of(log)
    for cut in range(len(log) + 1):
        assert view_of([*fold(log[:cut]), *log[cut:]]) == expected


@thorough
@given(event_logs())
def test_it_is_in_order_and_small(log: list[Event]) -> None:
    folded = fold(log)
    assert len(folded) <= len(log)
    assert max((event.sequence for event in folded), default=0) == len(log)
    ends = {e.inference_id: e.sequence for e in log if isinstance(e.payload, InferenceFinished)}
    begins = {e.inference_id: e.sequence for e in reversed(log)}
    by_inference: dict[str, list[Event]] = {}
    for event in folded:
        by_inference.setdefault(event.inference_id, []).append(event)
    assert [e for events in by_inference.values() for e in events] == folded, "each inference is in one piece"
    in_order = sorted(begins, key=lambda name: (name not in ends, ends.get(name, begins[name])))
    assert list(by_inference) == in_order
    for events in by_inference.values():
        sequences = [event.sequence for event in events]
        assert sequences == sorted(set(sequences))
        for lost in events:
            if isinstance(lost.payload, InferenceAttemptLost):
                void = range(lost.payload.superseded_after_sequence + 1, lost.sequence)
                assert not set(sequences) & set(void)
    for event in folded:
        frame = encode_frame(event)
        assert len(frame) <= EVENT_BYTES_MAX
        assert decode_frames(frame) == [event]


@thorough
@given(event_logs())
def test_one_inference_folds_as_it_does_among_others(log: list[Event]) -> None:
    for name in {event.inference_id for event in log}:
        assert fold(e for e in log if e.inference_id == name) == [e for e in fold(log) if e.inference_id == name]


def events_of(*payloads: Payload | tuple[Payload, str], inference_id: str = "i", first: int = 1) -> list[Event]:
    told = [payload if isinstance(payload, tuple) else (payload, "b") for payload in payloads]
    return [
        Event(SESSION, inference_id, EPOCH, payload, entity, 0, sequence)
        for sequence, (payload, entity) in enumerate(told, first)
    ]


FINISHED = InferenceFinished(Cancelled(), Usage(), 1)


def sequences(events: Sequence[Event]) -> list[int]:
    return [event.sequence for event in events]


def test_deltas_are_joined_until_their_final_comes() -> None:
    log = events_of(LlmStart(), LlmDelta("a", 0), LlmDelta("ü", 1), LlmDelta("c", 3), LlmFinal("aüc", 4))
    assert fold(log[:4]) == [log[0], events_of(LlmDelta("aüc", 0), first=4)[0]]
    assert fold(log) == [log[0], log[4]]


@pytest.mark.parametrize(
    ("start", "delta", "final"),
    [
        (LlmStart(), LlmDelta, LlmFinal("", 2, text_omitted=True)),
        (LlmThinkingStart(), LlmThinkingDelta, LlmThinkingFinal("", 2, text_omitted=True)),
        (ToolStart("t"), ToolDelta, ToolCallCompleted(ToolCall("b", "t", ""), args_omitted=True)),
    ],
    ids=["text", "thinking", "arguments"],
)
def test_deltas_stay_where_their_final_leaves_the_text_out(
    start: Payload, delta: type[LlmDelta | LlmThinkingDelta | ToolDelta], final: Payload
) -> None:
    log = events_of(start, delta("a", 0), delta("b", 1), final)
    assert fold(log) == [log[0], events_of(delta("ab", 0), first=3)[0], log[3]]


def test_arguments_that_were_cut_stay() -> None:
    log = events_of(ToolStart("t"), ToolDelta("{", 0), ToolDelta('"', 1), ToolDone(), FINISHED)
    assert [event.payload for event in fold(log)] == [ToolStart("t"), ToolDelta('{"', 0), ToolDone(), FINISHED]


def test_a_joined_delta_is_bounded_and_never_cuts_one_that_was_told() -> None:
    half = "ü" * (DELTA_BYTES_MAX // 4)
    pieces = [half, half, "x", half, half, "y"]
    offsets = [sum(len(piece.encode()) for piece in pieces[:n]) for n in range(len(pieces))]
    log = events_of(LlmStart(), *map(LlmDelta, pieces, offsets))
    joined = [event.payload for event in fold(log)[1:]]
    assert joined == [
        LlmDelta(half + half, 0),
        LlmDelta("x" + half, DELTA_BYTES_MAX),
        LlmDelta(half + "y", DELTA_BYTES_MAX + DELTA_BYTES_MAX // 2 + 1),
    ]
    assert sequences(fold(log)) == [1, 3, 5, 7]


def test_a_loss_takes_what_is_void_and_stays_itself() -> None:
    begun = (InferenceQueued(1), InferenceStarted("e", "p"), TurnOpened(0, 1))
    void = (EngineCallStarted(1, "e"), LlmStart(), LlmDelta("a", 0), LlmFinal("a", 1), LlmThinkingStart())
    log = events_of(*begun, *void, InferenceAttemptLost(0, 3))
    assert fold(log) == [*log[:3], log[8]]
    again = events_of(InferenceStarted("e", "p"), LlmStart(), LlmDelta("b", 0), first=10)
    assert fold([*log, *again]) == [*log[:3], log[8], *again]


def test_the_last_update_of_a_thinking_mode_stays_until_it_is_completed() -> None:
    modes = [ThinkingMode("m", "p", str(n)) for n in range(4)]
    log = events_of(*map(ThinkingModeUpdate, modes[:2]), (ThinkingModeUpdate(modes[2]), "other"))
    assert fold(log) == log[1:]
    completed = events_of(ThinkingModeCompleted(modes[3], success=True), first=4)
    assert fold([*log, *completed]) == [log[2], *completed]


def test_an_update_that_a_completion_of_a_later_call_replaces_goes_with_the_end() -> None:
    update, completed = ThinkingModeUpdate(ThinkingMode("m")), ThinkingModeCompleted(ThinkingMode("m"), success=True)
    log = events_of(EngineCallStarted(1, "e"), update, EngineCallStarted(2, "e"), completed)
    assert fold(log) == log
    ended = events_of(FINISHED, first=5)
    assert fold([*log, *ended]) == [log[0], *log[2:], *ended]


def test_a_loss_brings_back_the_update_of_the_step_before() -> None:
    first, second = (ThinkingModeUpdate(ThinkingMode("m", "p", text)) for text in ("first", "second"))
    log = events_of(
        EngineCallStarted(1, "e"), ThinkingModeStarted(ThinkingMode()), first, EngineCallStarted(2, "e"), second
    )
    lost = events_of(InferenceAttemptLost(0, 3), first=6)
    assert fold([*log, *lost]) == [*log[:3], *lost]
    ended = events_of(FINISHED, first=6)
    assert fold([*log, *ended]) == [*log[:2], *log[3:], *ended], "once it has ended, the last one is enough"


def test_an_inference_is_handed_out_with_its_end_and_not_held() -> None:
    folded = LogFold()
    waiting = events_of(InferenceQueued(2), inference_id="waits")
    log = events_of(LlmStart(), LlmDelta("a", 0), LlmFinal("a", 1), FINISHED, first=2)
    assert [folded.take(event) for event in [*waiting, *log[:3]]] == [()] * 4
    assert folded.take(log[3]) == (log[0], log[2], log[3])
    assert list(folded.unfinished()) == [tuple(waiting)]

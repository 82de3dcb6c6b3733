from datetime import UTC, datetime
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnwire_server.domain.event import (
    Chunk,
    Custom,
    Event,
    LlmDelta,
    Log,
    ToolsRequired,
    frame_bounds,
)
from turnwire_server.domain.inference import InferenceState
from turnwire_server.wire.event import decode_frames, encode_event, stamp_frame

NOW = datetime(2026, 11, 20, tzinfo=UTC)

# Lengths on both sides of where the varint of a frame grows.
LENGTHS = (1, 20, 40, 127, 128, 5000, 16_300, 16_400)


def chunk(first: int, lengths: tuple[int, ...], state: InferenceState | None = None) -> Chunk:
    events = [Event("s", "i", NOW, LlmDelta("x" * length, 0)) for length in lengths]
    frames = [stamp_frame(encode_event(event), sequence) for sequence, event in enumerate(events, first)]
    return Chunk(first, first + len(lengths) - 1, "i", state, b"".join(frames))


def sequences(part: Chunk | None) -> list[int]:
    return [] if part is None else [event.sequence for event in decode_frames(part.data)]


@pytest.mark.parametrize("after", range(9, 20))
@pytest.mark.parametrize("through", range(9, 20))
def test_cut_at_every_cursor(after: int, through: int) -> None:
    whole = chunk(11, LENGTHS, InferenceState.SUCCEEDED)
    part = whole.cut(after, through)
    assert sequences(part) == [sequence for sequence in range(11, 19) if after < sequence <= through]
    if part is not None:
        assert (part.first_sequence, part.last_sequence) == (sequences(part)[0], sequences(part)[-1])
        assert part.state is (InferenceState.SUCCEEDED if through >= 18 else None)


def test_cut_of_everything_is_the_chunk_itself() -> None:
    whole = chunk(1, LENGTHS)
    assert whole.cut(0, 100) is whole


@given(st.lists(st.integers(0, 400), min_size=1, max_size=20), st.data())
def test_cuts_join_to_the_whole(lengths: list[int], data: st.DataObject) -> None:
    whole = chunk(1, tuple(length or 1 for length in lengths))
    at = data.draw(st.integers(0, len(lengths)))
    parts = [whole.cut(0, at), whole.cut(at, len(lengths))]
    assert b"".join(part.data for part in parts if part) == whole.data


def test_frame_bounds_cover_the_data() -> None:
    whole = chunk(1, LENGTHS)
    bounds = list(frame_bounds(whole.data))
    assert len(bounds) == len(LENGTHS)
    assert bounds[0][0] == 0
    assert bounds[-1][1] == len(whole.data)
    assert all(before[1] == after[0] for before, after in pairwise(bounds))


def test_frame_bounds_of_nothing() -> None:
    assert list(frame_bounds(b"")) == []


def test_what_matters_is_not_ignorable() -> None:
    assert Event("s", "i", NOW, Log("info", "x")).ignorable
    assert Event("s", "i", NOW, Custom("t")).ignorable
    for payload in (LlmDelta("x", 0), ToolsRequired()):
        assert not Event("s", "i", NOW, payload).ignorable

"""Frames joined to chunks, and pages of them."""

from itertools import count, groupby, pairwise

from hypothesis import given
from hypothesis import strategies as st

from turnwire_server.domain.event import frame_bounds
from turnwire_server.domain.inference import InferenceState
from turnwire_server.stores.page import PAGE_BYTES_MAX, Page, take_chunks, take_listing, take_page
from turnwire_server.stores.sequence import CHUNK_BYTES_MAX, Appended, join_chunks, stamp

_STATES = st.one_of(st.none(), st.sampled_from([InferenceState.RUNNING, InferenceState.SUCCEEDED]))
_SIZES = st.lists(st.sampled_from([0, 1, 100, 200, CHUNK_BYTES_MAX // 3, CHUNK_BYTES_MAX]), min_size=1, max_size=6)
_CALLS = st.lists(st.tuples(st.sampled_from("ab"), _STATES, _SIZES), max_size=8)


def _append(calls: list[tuple[str, InferenceState | None, list[int]]]) -> list[Appended]:
    head = 0
    appended: list[Appended] = []
    for inference_id, state, sizes in calls:
        appended.append(stamp(inference_id, state, [b"x" * size for size in sizes], head))
        head += len(sizes)
    return appended


@given(_CALLS)
def test_chunks_are_the_frames_in_order(calls: list[tuple[str, InferenceState | None, list[int]]]) -> None:
    appended = _append(calls)
    chunks = join_chunks(appended)
    assert b"".join(c.data for c in chunks) == b"".join(frame for a in appended for frame in a.frames)
    for chunk in chunks:
        frames = list(frame_bounds(chunk.data))
        assert len(frames) == chunk.last_sequence - chunk.first_sequence + 1
        assert len(chunk.data) <= CHUNK_BYTES_MAX or len(frames) == 1
    assert all(left.last_sequence + 1 == right.first_sequence for left, right in pairwise(chunks))


@given(_CALLS)
def test_chunks_are_as_few_as_may_be(calls: list[tuple[str, InferenceState | None, list[int]]]) -> None:
    chunks = join_chunks(_append(calls))
    for left, right in pairwise(chunks):
        if left.inference_id == right.inference_id:
            begin, end = next(frame_bounds(right.data))
            assert len(left.data) + end - begin > CHUNK_BYTES_MAX


@given(_CALLS)
def test_the_last_chunk_of_an_inference_says_where_it_was_moved(
    calls: list[tuple[str, InferenceState | None, list[int]]],
) -> None:
    chunks = join_chunks(_append(calls))
    for _, neighbours in groupby(zip(calls, _append(calls), strict=True), lambda pair: pair[0][0]):
        group = list(neighbours)
        moves = [(state, append.first_sequence + len(sizes) - 1) for (_, state, sizes), append in group if state]
        for state, last in moves[-1:]:
            [chunk] = [chunk for chunk in chunks if chunk.first_sequence <= last <= chunk.last_sequence]
            assert chunk.state is state


@given(_CALLS, st.integers(0, 50), st.integers(0, 2 * CHUNK_BYTES_MAX))
def test_a_page_begins_after_the_cursor(
    calls: list[tuple[str, InferenceState | None, list[int]]], after: int, limit: int
) -> None:
    chunks = join_chunks(_append(calls))
    head = chunks[-1].last_sequence if chunks else 0
    taken, through = take_chunks(chunks, after, head, limit)
    if after >= head:
        assert (taken, through) == ((), after)
    else:
        assert taken[0].first_sequence == after + 1
        assert taken[-1].last_sequence == through
        assert sum(len(chunk.data) for chunk in taken) <= limit or len(taken) == 1
        following = [chunk for chunk in chunks if chunk.first_sequence == through + 1]
        assert all(sum(len(c.data) for c in (*taken, chunk)) > limit for chunk in following)


def test_a_page_has_one_item_however_large() -> None:
    assert take_page([("a", 9), ("b", 1)], 5) == (["a"], True)
    assert take_page([("a", 5)], 5) == (["a"], False)
    assert take_page([("a", 2), ("b", 3), ("c", 1)], 5) == (["a", "b"], True)
    assert take_page([], 5) == ([], False)


def test_a_listing_is_read_no_further_than_needed() -> None:
    # A page is followed by another one if there is one more item, so one more is read.
    keys = count(9, -1)
    page = take_listing(((key, "x" * 10) for key in keys), 3, len)
    assert (page.items, page.next, next(keys)) == (("x" * 10,) * 3, 7, 5)
    keys = count(9, -1)
    page = take_listing(((key, "x" * (PAGE_BYTES_MAX // 2)) for key in keys), 100, len)
    assert (len(page.items), page.next, next(keys)) == (2, 8, 6)
    keys = count(9, -1)
    page = take_listing(((key, "x" * (PAGE_BYTES_MAX + 1)) for key in keys), 100, len)
    assert (len(page.items), page.next, next(keys)) == (1, 9, 7)
    assert take_listing([(2, "a"), (1, "b")], 2, len) == Page(("a", "b"), None)
    assert take_listing([(1, "x" * (PAGE_BYTES_MAX + 1))], 2, len).next is None
    assert take_listing(list[tuple[int, str]](), 2, len) == Page((), None)

"""The log as every store keeps it: frames joined to chunks, and chunks read back page by page."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from typing import TypeVar

from turnwire_server.domain.event import Chunk
from turnwire_server.domain.inference import InferenceState
from turnwire_server.stores.base import Page
from turnwire_server.wire.event import stamp_frame

T = TypeVar("T")

# The most bytes of a chunk that has more than one event. Appends of one inference join the same chunk up to here.
CHUNK_BYTES_MAX = 256 * 1024

# The bytes that a page of a listing or of blocks has at most, unless its first item alone has more (contract: GetTurn).
PAGE_BYTES_MAX = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Appended:
    """What one call appended to the log of a session: frames of an inference, and where they moved it, if they did."""

    first_sequence: int
    inference_id: str
    state: InferenceState | None
    frames: Sequence[bytes]


def stamp(inference_id: str, state: InferenceState | None, bodies: Sequence[bytes], head: int) -> Appended:
    """Give encoded events the sequences after `head`."""
    frames = [stamp_frame(body, sequence) for sequence, body in enumerate(bodies, head + 1)]
    return Appended(head + 1, inference_id, state, frames)


def join_chunks(appended: Iterable[Appended]) -> list[Chunk]:
    """Join neighbouring appends to one session's log, in the order of their sequences, to as few chunks as may be."""
    return [
        chunk
        for inference_id, group in groupby(appended, lambda append: append.inference_id)
        for chunk in _join(inference_id, group)
    ]


def _join(inference_id: str, appended: Iterable[Appended]) -> Iterator[Chunk]:
    first, frames, size = 0, list[bytes](), 0
    state: InferenceState | None = None
    for append in appended:
        first = first or append.first_sequence
        for frame in append.frames:
            if frames and size + len(frame) > CHUNK_BYTES_MAX:
                yield Chunk(first, first + len(frames) - 1, inference_id, state, b"".join(frames))
                first, frames, size, state = first + len(frames), [], 0, None
            frames.append(frame)
            size += len(frame)
        state = append.state or state
    if frames:
        yield Chunk(first, first + len(frames) - 1, inference_id, state, b"".join(frames))


def take_page(sized: Iterable[tuple[T, int]], limit_bytes: int = PAGE_BYTES_MAX) -> tuple[list[T], bool]:
    """Take the items that fit in `limit_bytes`, and one in any case; return them, and whether there are more."""
    taken: list[T] = []
    total = 0
    for item, size in sized:
        total += size
        if taken and total > limit_bytes:
            return taken, True
        taken.append(item)
    return taken, False


def take_listing(found: Iterable[tuple[int, T]], limit: int, size: Callable[[T], int]) -> Page[T]:
    """Take a page of a listing, at most `limit` items, as `take_page` does. `found` has keys, and is read lazily."""
    keyed = iter(found)
    taken, is_cut = take_page((item, size(item[1])) for item in islice(keyed, limit))
    has_more = is_cut or next(keyed, None) is not None
    return Page(tuple(item for _, item in taken), taken[-1][0] if has_more else None)


def take_chunks(chunks: Iterable[Chunk], after: int, head: int, limit_bytes: int) -> tuple[tuple[Chunk, ...], int]:
    """Take the part of a log after a sequence, as `take_page` does; return its chunks, and up to where they reach."""
    parts = (part for chunk in chunks if (part := chunk.cut(after, head)))
    taken, has_more = take_page(((part, len(part.data)) for part in parts), limit_bytes)
    return tuple(taken), taken[-1].last_sequence if has_more else max(after, head)

"""Pages of listings, of blocks and of the log, bounded in items and in bytes. Both stores read through these."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Generic, TypeVar

from turnwire_server.domain.event import Chunk
from turnwire_server.domain.turn import Turn

T = TypeVar("T")

# The bytes that a page of a listing or of blocks has at most, unless its first item alone has more (contract: GetTurn).
PAGE_BYTES_MAX = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """A part of a listing, and the cursor to the next part; None when there is none."""

    items: tuple[T, ...]
    next: int | None


@dataclass(frozen=True, slots=True)
class LogPage:
    """A part of a session's log. It covers the sequences in (after, through]; a filter may have left some out."""

    log: str
    earliest_sequence: int
    head_sequence: int
    chunks: tuple[Chunk, ...]
    through_sequence: int


@dataclass(frozen=True, slots=True)
class TurnPage:
    """A turn with a part of its blocks, and the position of the block that comes next; None when there is none."""

    turn: Turn
    next: int | None


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

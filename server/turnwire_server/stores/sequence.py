"""Where events get their sequences: encoded events are stamped, and joined to the chunks that a commit leaves."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from turnwire_server.domain.event import Chunk
from turnwire_server.domain.inference import InferenceState
from turnwire_server.wire.event import stamp_frame

# The most bytes of a chunk that has more than one event. Appends of one inference join the same chunk up to here.
CHUNK_BYTES_MAX = 256 * 1024


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
        for chunk in _join(inference_id, tuple(group))
    ]


def _join(inference_id: str, appended: Sequence[Appended]) -> Iterator[Chunk]:
    data = b"".join(frame for append in appended for frame in append.frames)
    if len(data) > CHUNK_BYTES_MAX:
        yield from _split(inference_id, appended)
    elif data:
        first, last = appended[0].first_sequence, appended[-1].first_sequence + len(appended[-1].frames) - 1
        state = next((append.state for append in reversed(appended) if append.state is not None), None)
        yield Chunk(first, last, inference_id, state, data)


def _split(inference_id: str, appended: Iterable[Appended]) -> Iterator[Chunk]:
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

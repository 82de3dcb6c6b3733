"""Inferences as the last commits left them: whoever waits for one, or looks at it often, needs no thread to read it.

Only commits write here, so what is here is what is in the file: nobody else writes to that while this process has it.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace

from turnwire_server.domain.inference import Inference, InferenceState
from turnwire_server.stores.base import Commit
from turnwire_server.stores.sqlite_transaction import Written

# The inferences that are kept, at some 2 KiB each: beyond that, those that were written longest ago are read again.
RECENT_MAX = 1024


class RecentInferences:
    """The inferences that were written last. One that is QUEUED is not here: its place in line changes without it."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, str], Inference] = OrderedDict()  # as they were written, the last one last
        self._last_sequences: dict[tuple[str, str], int] = {}  # of those that were only appended to since

    def get(self, principal: str, inference_id: str) -> Inference | None:
        """Return an inference as it is in the file, None if it has to be read there."""
        key = principal, inference_id
        inference = self._kept.get(key)
        if inference and (last := self._last_sequences.pop(key, None)):
            inference = self._kept[key] = replace(inference, last_sequence=last)
        return inference

    def take(self, written: Sequence[Written], commits: Sequence[Commit]) -> None:
        """Take what one transaction wrote, in order, and what it appended or deleted."""
        for commit in commits:
            for chunk in commit.chunks:
                key = commit.principal, chunk.inference_id
                if key in self._kept:
                    self._last_sequences[key] = chunk.last_sequence
        for principal, inference in written:
            key = principal, inference.inference_id
            self._last_sequences.pop(key, None)
            self._kept[key] = inference
            self._kept.move_to_end(key)
            if inference.state is InferenceState.QUEUED:
                del self._kept[key]
        deleted = {(commit.principal, commit.session_id) for commit in commits if commit.is_deleted}
        if deleted:
            for key in [each for each, kept in self._kept.items() if (each[0], kept.session_id) in deleted]:
                del self._kept[key]
                self._last_sequences.pop(key, None)
        while len(self._kept) > RECENT_MAX:
            key, _ = self._kept.popitem(last=False)
            self._last_sequences.pop(key, None)

    def clear(self) -> None:
        """Forget everything: it is not known what became of a transaction."""
        self._kept.clear()
        self._last_sequences.clear()

"""Inferences as the last commits left them: whoever waits for one, or looks at it often, needs no thread to read it.

Nobody else writes to the file while this process has it; if somebody does, nothing is kept any more. What a transaction
changes is withdrawn before its COMMIT and is back, changed, once the commit was told: so what is here is never older
than what somebody may have read in the file.
"""

import threading
from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from turnwire_server.domain.inference import Inference, InferenceState
from turnwire_server.stores.base import Commit
from turnwire_server.stores.sqlite_transaction import Written

# The inferences that are kept, at some 2 KiB each: beyond that, those that were written longest ago are read again.
RECENT_MAX = 1024

Key = tuple[str, str]  # principal, inference_id


@dataclass(frozen=True, slots=True)
class Change:
    """What a transaction is about to change, and what was kept of that. `epoch` counts the deletions before."""

    written: Sequence[Written]
    commits: Sequence[Commit]
    keys: frozenset[Key]
    withdrawn: Mapping[Key, Inference]
    epoch: int

    def after(self) -> Mapping[Key, Inference]:
        """Return what is known of all that it changed once it has happened."""
        known = dict(self.withdrawn)
        for principal, inference in self.written:
            known[principal, inference.inference_id] = inference
        for commit in self.commits:
            for chunk in commit.chunks:
                appended = known.get((commit.principal, chunk.inference_id))
                if appended is not None and chunk.last_sequence > appended.last_sequence:
                    told = replace(appended, last_sequence=chunk.last_sequence)
                    known[commit.principal, chunk.inference_id] = told
        deleted = {(commit.principal, commit.session_id) for commit in self.commits if commit.is_deleted}
        return {key: kept for key, kept in known.items() if (key[0], kept.session_id) not in deleted}


class RecentInferences:
    """The inferences that were written last. One that is QUEUED is not here: its place in line changes without it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[Key, Inference] = OrderedDict()  # as they were written, the last one last
        self._changing: Counter[Key] = Counter()  # in how many transactions that were not told yet
        self._epoch = 0
        self._is_off = False

    def turn_off(self) -> None:
        """Keep nothing any more: somebody else writes to the file."""
        with self._lock:
            self._is_off = True
            self._kept.clear()

    def get(self, principal: str, inference_id: str) -> Inference | None:
        """Return an inference as it is in the file, None if it has to be read there."""
        return self._kept.get((principal, inference_id))

    def withdraw(self, written: Sequence[Written], commits: Sequence[Commit]) -> Change:
        """Withdraw what a transaction changes; called before its COMMIT, on the writer's thread."""
        keys = {(principal, inference.inference_id) for principal, inference in written}
        keys |= {(commit.principal, chunk.inference_id) for commit in commits for chunk in commit.chunks}
        with self._lock:
            if any(commit.is_deleted for commit in commits):  # whatever belongs to it: who asks for others reads them
                self._kept.clear()
                self._epoch += 1
            self._changing.update(keys)
            withdrawn = {key: kept for key in keys if (kept := self._kept.pop(key, None))}
            return Change(written, commits, frozenset(keys), withdrawn, self._epoch)

    def settle(self, change: Change, has_happened: bool | None) -> None:
        """Put back what is known, now that everyone else is told; None: it is not known what became of it."""
        known = change.after() if has_happened else change.withdrawn
        with self._lock:
            self._changing -= Counter(change.keys)
            if has_happened is None or change.epoch != self._epoch or self._is_off:
                return
            for key, inference in known.items():
                if key not in self._changing and inference.state is not InferenceState.QUEUED:
                    self._kept[key] = inference
            while len(self._kept) > RECENT_MAX:
                self._kept.popitem(last=False)

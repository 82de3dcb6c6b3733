"""A store and the model, side by side: every call is made on both, and whatever differs is an AssertionError."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from datetime import UTC, datetime
from enum import Enum
from itertools import count
from typing import Any, cast

from contract.store_faults import AmbiguousStore, Fault, Outcome, hear_out
from contract.store_model import Model
from contract.store_model_state import Entry
from turnwire_server.domain.event import Chunk
from turnwire_server.domain.turn import TurnView
from turnwire_server.stores.base import Commit, SessionStore
from turnwire_server.stores.lease import Claim, Heartbeat
from turnwire_server.stores.start import Started
from turnwire_server.wire.event import decode_frames, encode_event, stamp_frame

EPOCH = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)

# How often a sweep may say that there is more. What an example leaves behind is less than that.
_SWEEPS_MAX = 50


class Witness:
    """A decision that notes what it was shown last."""

    def __init__(self, decide: Callable[..., Any]) -> None:
        self._decide = decide
        self._shown: tuple[object, ...] = ()

    def __call__(self, *shown: object) -> Any:
        """Decide."""
        self._shown = shown
        return self._decide(*shown)

    def copy(self) -> "Witness":
        """Return another witness of the same decision."""
        return Witness(self._decide)

    def take(self) -> tuple[object, ...]:
        """Return what was shown since the last time."""
        shown, self._shown = self._shown, ()
        return shown


class Call:
    """One call of the port, which may be made again as it was."""

    def __init__(self, name: str, *args: Any, **named: Any) -> None:
        self.name = name
        self.args = args
        self.named = named
        self.witness = next((arg for arg in args if isinstance(arg, Witness)), None)
        self.sent_count = 0

    def make(self, port: object) -> Any:
        """Make the call on a store, which returns an awaitable, or on the model, which does not."""
        return getattr(port, self.name)(*self.args, **self.named)

    def copy(self) -> "Call":
        """Return the same call, to be made once more by itself."""
        args = [arg.copy() if isinstance(arg, Witness) else arg for arg in self.args]
        return Call(self.name, *args, **self.named)

    def take_shown(self) -> tuple[object, ...]:
        """Return what the call's decision was shown."""
        return self.witness.take() if self.witness else ()

    def __repr__(self) -> str:
        said = [*map(brief, self.args), *(f"{name}={brief(value)}" for name, value in self.named.items())]
        return f"{self.name}({', '.join(said)})"


@dataclass
class BeatBook:
    """What is known of how a store counts beats. It has to count what the model counts, and may count more."""

    model: Model
    _seen: dict[tuple[str, int], tuple[int, int]] = field(default_factory=dict[tuple[str, int], tuple[int, int]])
    _last: dict[str, int] = field(default_factory=dict[str, int])

    def note(self, owner: str, beat: int) -> None:
        """Take what a store said, and check it against what it said before."""
        beats, idle_beats = self._count(owner)
        if owner in self._last:
            before = self._last[owner]
            beats_before, idle_before = self._seen[owner, before]
            assert beat - before >= beats - beats_before, f"{owner} has beaten, and is at {beat} after {before}"
            is_same = (beats, idle_beats) == (beats_before, idle_before)
            assert not is_same or beat == before, f"{owner} has not beaten, and is at {beat} after {before}"
        self._last[owner] = beat
        self._seen[owner, beat] = beats, idle_beats

    def is_certain(self, owner: str, beat: int) -> bool:
        """Return whether the port says if an owner is still at a beat. It does not if that has beaten while idle."""
        beats, idle_beats = self._count(owner)
        return self._seen[owner, beat][0] != beats or self._seen[owner, beat][1] == idle_beats

    def to_model(self, owner: str, beat: int) -> int:
        """Return the model's beat for a store's."""
        return self._seen[owner, beat][0]

    def _count(self, owner: str) -> tuple[int, int]:
        return self.model.owners[owner].beats, self.model.owners[owner].idle_beats


class World:
    """The store under test, the model, a clock that is set, and all that is to be minted."""

    store: SessionStore

    def __init__(self) -> None:
        self.now = EPOCH
        self.model = Model(lambda: self.now)
        self.beats = BeatBook(self.model)
        self.trace: list[tuple[Call, object]] = []
        self.mint_inside: Callable[[], str] = map("id-{:06d}".format, count(1)).__next__
        self._commits: list[Commit] = []
        self._number = count(1)

    def publish(self, commits: Sequence[Commit]) -> None:
        """Take what the store publishes."""
        self._commits.extend(commits)

    def mint(self, what: str) -> str:
        """Return a new name."""
        return f"{what}-{next(self._number)}"

    async def exchange(self, *sent: tuple[Call, Fault]) -> list[Outcome | None]:
        """Make calls at the same time, in this order; return what their callers hear, None for nothing.

        What the store does has to be what the model does, heard or not, and so has what it publishes.
        """
        reached = [call for call, fault in sent if fault in (Fault.NONE, Fault.UNHEARD)]
        expected = [self._ask_model(call) for call in reached]
        heard: dict[Call, Outcome] = {}
        answers = await asyncio.gather(*(self._ask_store(call, fault, heard) for call, fault in sent))
        for call, (outcome, shown) in zip(reached, expected, strict=True):
            self._compare(call, outcome, heard[call])
            seen = call.take_shown()
            assert shown == seen, f"{call}: its decision was shown\n  {brief(seen)}\n  not {brief(shown)}"
        self._compare_published()
        for call, _ in sent:
            call.sent_count += 1
        return answers

    async def read(self, call: Call) -> None:
        """Make a call that changes nothing."""
        expected, _ = self._ask_model(call)
        self._compare(call, expected, await hear_out(call.make(self.store)))

    def _ask_model(self, call: Call) -> tuple[Outcome, tuple[object, ...]]:
        asked = call
        if call.name == "declare_dead":
            owner, beat = call.args
            asked = Call(call.name, owner, self.beats.to_model(owner, beat))
        try:
            outcome = Outcome(asked.make(self.model))
        except Exception as error:  # noqa: BLE001 - a refusal is an outcome as well
            outcome = Outcome(error=error)
        return outcome, call.take_shown()

    async def _ask_store(self, call: Call, fault: Fault, heard: dict[Call, Outcome]) -> Outcome | None:
        store = AmbiguousStore(
            cast(SessionStore, _Sweeping(self.store)), lambda _: fault, lambda outcome: heard.setdefault(call, outcome)
        )
        outcome = await hear_out(call.make(store))
        self.trace.append((call, fault if fault.value else outcome.error or outcome.answer))
        return outcome if fault is Fault.NONE else None

    def _compare(self, call: Call, expected: Outcome, actual: Outcome) -> None:
        if expected.error or actual.error:
            is_same = _told_error(expected.error) == _told_error(actual.error)
            assert is_same, f"{call}\n  came to {brief(actual)}\n  not to {brief(expected)}"
        elif call.name == "heartbeat":
            self._compare_heartbeats(expected.answer, actual.answer)
        else:
            claim = actual.answer.claim if isinstance(actual.answer, Started) else None
            plain = replace(claim, turn=None, is_step_mode_off=False) if claim else None
            answer = replace(actual.answer, claim=plain) if claim else actual.answer
            assert expected.answer == answer, (
                f"{call}\n  answered {brief(actual.answer)}\n  not {brief(expected.answer)}"
            )
            if claim:
                self._check_extras(claim)

    def _check_extras(self, claim: Claim) -> None:
        """Check what a claim brought that not every store brings."""
        place = claim.lease.principal, claim.inference.session_id
        assert not (claim.is_step_mode_off and self.model.get_session(*place).step_mode), f"{claim}: it is on"
        if claim.turn:
            page = self.model.get_turn(*place, claim.turn.index, TurnView.FULL, 0, 1000)
            assert page.turn == claim.turn, f"{claim.lease} brought {claim.turn}\n  not {page.turn}"

    def _compare_heartbeats(self, expected: Heartbeat, actual: Heartbeat) -> None:
        assert set(actual.running) == set(expected.running), f"running: {actual.running}, not {expected.running}"
        assert len(actual.running) == len(expected.running), f"twice: {actual.running}"
        assert actual.beats.keys() == expected.beats.keys(), f"beats: {actual.beats}, not {expected.beats}"
        for owner, beat in actual.beats.items():
            self.beats.note(owner, beat)

    def _compare_published(self) -> None:
        """Check that what was published is what was appended: each event once, in order, and nothing else."""
        told, self.model.told[:] = self.model.told[:], []
        commits, self._commits[:] = self._commits[:], []
        expected = defaultdict[tuple[str, str], list[Entry | None]](list)
        for principal, session_id, entry in told:
            expected[principal, session_id].append(entry)
        for commit in commits:
            entries = expected[commit.principal, commit.session_id]
            for chunk in commit.chunks:
                size = chunk.last_sequence - chunk.first_sequence + 1
                compare_chunk(chunk, entries[:size])
                del entries[:size]
            if commit.is_deleted:
                assert entries[:1] == [None], f"{commit.session_id} was deleted, which was not to be published"
                del entries[0]
        left = {where: entries for where, entries in expected.items() if entries}
        assert not left, f"not published: {left}"


class _Sweeping:
    """A store whose sweep does all there is."""

    def __init__(self, store: SessionStore) -> None:
        self._store = store

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    async def sweep(self, now: datetime) -> None:
        """Sweep until there is nothing more."""
        for _ in range(_SWEEPS_MAX):
            if not await self._store.sweep(now):
                return
        msg = "sweep() never comes to an end"
        raise AssertionError(msg)


def brief(value: object) -> str:
    """Return what a value says, without what is as it always is."""
    if isinstance(value, datetime):
        return f"+{(value - EPOCH).total_seconds():g}s"
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, bytes):
        return repr(value) if len(value) < 20 else f"<{len(value)} bytes>"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(brief, cast(Sequence[object], value)))}]"
    if isinstance(value, Witness):
        return "decide"
    if is_dataclass(value) and not isinstance(value, type):
        said = [
            f"{each.name}={brief(own)}"
            for each in fields(value)
            if (own := getattr(value, each.name)) not in (each.default, None, "", (), {}, 0, b"")
        ]
        return f"{type(value).__name__}({', '.join(said)})"
    return repr(value)


def compare_chunk(chunk: Chunk, entries: Sequence[Entry | None], *, is_whole: bool = True) -> None:
    """Check that a chunk, or what is left of it, is these entries of a log."""
    known = [entry for entry in entries if entry]
    expected = b"".join(_frame(entry) for entry in known)
    assert chunk.data == expected, f"events {_told(chunk.data)}\n  not {_told(expected)}"
    assert [entry.sequence for entry in known] == list(range(chunk.first_sequence, chunk.last_sequence + 1))
    assert {entry.inference_id for entry in known} == {chunk.inference_id}
    moved = [entry.state for entry in known if entry.state]
    assert not is_whole or chunk.state == (moved[-1] if moved else None), f"{chunk} moved to {moved}"


def _frame(entry: Entry) -> bytes:
    body = entry.body if isinstance(entry.body, bytes) else encode_event(entry.body)
    return stamp_frame(body, entry.sequence)


def _told(data: bytes) -> str:
    return brief(decode_frames(data))


def _told_error(error: Exception | None) -> tuple[object, ...]:
    if error is None:
        return ()
    kind = next((kind for kind in (LookupError, ValueError) if isinstance(error, kind)), type(error))
    metadata: Mapping[str, str] | None = getattr(error, "metadata", None)
    return kind, metadata

"""Who calls the store: clients, and owners that run inferences, sending again whatever they got no answer to."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from contract.store_faults import Fault, Outcome
from contract.store_world import EPOCH, Call, World
from turnwire_server.domain.event import Event, LlmDelta
from turnwire_server.domain.session import NewSession
from turnwire_server.stores.base import TOKEN_AGE_MIN
from turnwire_server.stores.lease import Claim, Heartbeat
from turnwire_server.wire.event import encode_event

OWNERS = 3

# The sessions that there may be. The last one has to be created first.
SESSIONS = (("local", "s"), ("local", "t"), ("other", "s"), ("local", "u"))


@dataclass(frozen=True, slots=True)
class Step:
    """One step of an example: a rule, who it is about, which of what they have, how, and what becomes of the call.

    `is_joined`: the call is made at the same time as the one before.
    """

    rule: str
    who: int = 0
    which: int = 0
    how: int = 0
    fault: Fault = Fault.NONE
    is_joined: bool = False

    def take(self, *choices: int) -> tuple[int, ...]:
        """Return one number below each of `choices`, all of which `how` says."""
        taken: list[int] = []
        left = self.how
        for choice in choices:
            left, number = divmod(left, choice)
            taken.append(number)
        return tuple(taken)


@dataclass(slots=True, eq=False)
class Slot:
    """Whoever makes one call after the other. `pending` is the one that got no answer: it is sent again, as it was.

    `begin_time` is when it was sent first.
    """

    pending: "Sent | None" = None
    is_busy: bool = False
    begin_time: datetime = EPOCH


@dataclass(slots=True, eq=False)
class Sent:
    """A call on its way. `done` takes its answer, `failed` its refusal. `is_dropped`: it is not sent again."""

    call: Call
    slot: Slot
    done: Callable[[Any], object] = lambda _: None
    failed: Callable[[Exception], object] = lambda _: None
    is_dropped: bool = False
    kind: str = ""


@dataclass(slots=True, eq=False)
class Run(Slot):
    """A claimed inference, as its owner knows it."""

    claim: Claim = field(kw_only=True)
    position: int = 0
    step: int = 0
    is_lost: bool = False
    is_cancel_requested: bool = False


@dataclass(slots=True, eq=False)
class Owner(Slot):
    """A server process; when it begins again it has another id.

    `strangers` run in its name, and it knows nothing of them. `beats` is what it heard of the others.
    """

    id: str = ""
    is_up: bool = False
    runs: list[Run] = field(default_factory=list[Run])
    strangers: tuple[str, ...] = ()
    beats: dict[str, int] = field(default_factory=dict[str, int])

    def waits(self) -> bool:
        """Return whether an answer is under way to it."""
        return self.is_busy or any(run.is_busy for run in self.runs)


class Driver:
    """All who call a store, and what they know. `counts` tells how often what happened."""

    def __init__(self, world: World, counts: Counter[str], *, reconciles: bool) -> None:
        self.world = world
        self.counts = counts
        self.reconciles = reconciles
        self.owners = [Owner() for _ in range(OWNERS)]
        self.clients: list[Slot] = []
        self.ghosts: list[Run] = []
        self.late: list[tuple[Call, datetime]] = []
        self.inferences: list[tuple[str, str]] = []
        self._group: list[tuple[Sent, Fault]] = []

    async def begin(self) -> None:
        """Make what every example begins with."""
        for principal, session_id in SESSIONS[:-1]:
            new = NewSession(session_id, labels={"of": "all"}, ttl=timedelta(hours=1))
            self.send(Sent(Call("create_session", principal, new, self.world.mint("log"), None), Slot()), Fault.NONE)
        for owner in self.owners[:2]:
            self.send(self.restart(owner), Fault.NONE)
        await self.flush()

    def send(self, sent: Sent, fault: Fault) -> None:
        """Put a call to those that are made next."""
        sent.slot.is_busy = True
        sent.slot.pending = None
        self._group.append((sent, fault))

    async def flush(self) -> None:
        """Make the calls that were put together."""
        group, self._group = self._group, []
        if not group:
            return
        outcomes = await self.world.exchange(*((sent.call, fault) for sent, fault in group))
        for (sent, fault), outcome in zip(group, outcomes, strict=True):
            sent.slot.is_busy = False
            self._count(sent, fault, outcome)
            if fault is Fault.LATE:
                self.late.append((sent.call.copy(), self.world.now))
            if outcome is None:
                self._wait(sent)
            elif outcome.error is None:
                sent.done(outcome.answer)
            else:
                sent.failed(outcome.error)

    def may_send_again(self, call: Call, since: datetime) -> bool:
        """Return whether the port says what comes of a call that is made as it was, that late."""
        if call.name == "declare_dead" and not self.world.beats.is_certain(*call.args):
            return False
        return self.world.now - since <= TOKEN_AGE_MIN

    def _wait(self, sent: Sent) -> None:
        if sent.is_dropped:
            return
        sent.slot.pending = sent
        if sent.call.sent_count == 1:
            sent.slot.begin_time = self.world.now
        if not isinstance(sent.slot, Owner | Run):
            self.clients.append(sent.slot)

    def _count(self, sent: Sent, fault: Fault, outcome: Outcome | None) -> None:
        name = sent.kind or sent.call.name
        if sent.call.sent_count > 1:
            name += ", sent again"
        said = "answered" if outcome else fault.name
        self.counts[f"{name}: {type(outcome.error).__name__ if outcome and outcome.error else said}"] += 1

    def restart(self, owner: Owner) -> Sent:
        """Let an owner begin under a new id."""
        owner.id = self.world.mint("owner")

        def done(_: object) -> None:
            owner.is_up = True

        return Sent(Call("register", owner.id), owner, done)

    def die(self, owner: Owner) -> None:
        """Let an owner end where it is. What it ran goes on as ghosts."""
        for run in list(owner.runs):
            self.drop(run)
        owner.pending, owner.is_up, owner.strangers, owner.beats = None, False, (), {}

    def drop(self, run: Run) -> None:
        """Let the owner of a run forget it."""
        run.pending = None
        for owner in self.owners:
            if run in owner.runs:
                owner.runs.remove(run)
                self.ghosts.append(run)

    def claim(self, owner: Owner, limit: int, *, only_lost: bool = False) -> Sent:
        """Let an owner claim."""
        call = Call("claim", owner.id, [self.world.mint("lease") for _ in range(limit)], only_lost=only_lost)

        def done(claims: tuple[Claim, ...]) -> None:
            for claim in claims:
                self.take(owner, claim)
                is_first = claim.inference.attempt == 0 and not claim.step
                what = "lost" if claim.is_lost else "first" if is_first else "continued"
                self.counts[f"claimed: {what}{', with effects' if claim.effects else ''}"] += 1

        return Sent(call, owner, done, lambda _: self.die(owner))

    def take(self, owner: Owner, claim: Claim) -> None:
        """Let an owner run what it was given."""
        run = Run(claim=claim, position=claim.position, step=claim.step, is_lost=claim.is_lost)
        owner.runs.append(run)

    def beat(self, owner: Owner) -> Sent:
        """Let an owner say that it lives, and compare what runs with what it knows of."""

        def done(heartbeat: Heartbeat) -> None:
            owner.beats = dict(heartbeat.beats)
            if self.reconciles:
                self._reconcile(owner, heartbeat)

        return Sent(Call("heartbeat", owner.id), Slot(), done, lambda _: self.die(owner), is_dropped=True)

    def _reconcile(self, owner: Owner, heartbeat: Heartbeat) -> None:
        claiming = owner.pending.call.args[1] if owner.pending and owner.pending.call.name == "claim" else ()
        known = {run.claim.lease.token: run for run in owner.runs}
        running = {running.token: running for running in heartbeat.running}
        for token, run in known.items():
            if token in running:
                run.is_cancel_requested = running[token].is_cancel_requested
            else:
                self.drop(run)
        unknown = running.keys() - known.keys() - set(claiming)
        owner.strangers = tuple(sorted(unknown))

    def revoke(self, owner: Owner) -> Sent:
        """Let an owner give up what it knows nothing of."""

        def done(_: object) -> None:
            owner.strangers = ()

        return Sent(Call("revoke", owner.id, owner.strangers), Slot(), done, is_dropped=True)

    def heard_of(self, owner: Owner) -> list[str]:
        """Return which others an owner may declare dead by what it heard of them last."""
        return [other for other, beat in owner.beats.items() if self.world.beats.is_certain(other, beat)]

    def declare_dead(self, owner: Owner, other: str) -> Sent:
        """Let an owner declare another one dead, by what it heard of it last."""

        def done(is_dead: bool) -> None:
            if is_dead:
                owner.beats.pop(other, None)
            self.counts[f"declared dead: {'yes' if is_dead else 'it has beaten'}"] += 1

        return Sent(Call("declare_dead", other, owner.beats[other]), Slot(), done)

    def deltas(self, session_id: str, inference_id: str, count: int) -> tuple[bytes, ...]:
        """Return encoded events that were never told before."""
        return tuple(
            encode_event(Event(session_id, inference_id, self.world.now, LlmDelta(self.world.mint("said"), 0)))
            for _ in range(count)
        )

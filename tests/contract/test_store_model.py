"""Stores do the same as the model, MemorySessionStore, whatever they are told in whatever order."""

import asyncio
import re
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contract.store_harness import DONE, Harness, admit, key, llm, open_memory, open_sqlite, user
from turnwire_server.domain.event import Cancelled
from turnwire_server.domain.inference import ConflictPolicy
from turnwire_server.domain.session import NewSession, Session, SessionChange
from turnwire_server.domain.turn import TurnView
from turnwire_server.stores.lease import Claim, Ending, Running
from turnwire_server.stores.start import StartCommand

_EXAMPLES = 60
_STEPS_MAX = 40
_SESSIONS = ("s", "t")
_PRINCIPALS = ("local", "other")


@dataclass
class World:
    """One store, and what it has handed out. Ids differ between stores: each is named by when it was first seen."""

    harness: Harness
    inferences: list[str] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)

    def told(self, outcome: object) -> str:
        """Return an outcome with the ids renamed."""
        return re.sub(r"id-\d+", lambda match: self.names.setdefault(match[0], f"#{len(self.names)}"), repr(outcome))


Step = Callable[[World], Awaitable[object]]


def _start(session: str, policy: ConflictPolicy, parent: int | None, name: str, seconds: int | None) -> Step:
    async def step(world: World) -> object:
        started = await world.harness.store.start(
            StartCommand(
                "local",
                session,
                (user(f"to {session}"),),
                parent,
                conflict_policy=policy,
                idempotency=key(name) if name else None,
                timeout=None if seconds is None else timedelta(seconds=seconds),
                data={"app.policy@v1": str(policy)},
            ),
            admit,
        )
        world.inferences.append(started.inference.inference_id)
        return started

    return step


def _create(principal: str, session: str) -> Step:
    async def step(world: World) -> object:
        new = NewSession(session, labels={"of": principal}, ttl=timedelta(hours=1))
        session_made, created = await world.harness.store.create_session(principal, new, None)
        return replace(session_made, log=""), created

    return step


def _claim(owner: str, limit: int) -> Step:
    async def step(world: World) -> object:
        claims = await world.harness.store.claim(owner, limit)
        world.claims.extend(claims)
        world.positions.extend(0 for _ in claims)
        return claims

    return step


def _reap(owner: str, lost: Sequence[int] = ()) -> Step:
    async def step(world: World) -> object:
        orphans = {world.inferences[which] for which in lost if which < len(world.inferences)}
        claims = await world.harness.store.reap(owner, orphans)
        world.claims.extend(claims)
        world.positions.extend(claim.position for claim in claims)
        return claims

    return step


def _append(which: int, count: int, off_by: int) -> Step:
    async def step(world: World) -> object:
        if not world.claims:
            return None
        number = which % len(world.claims)
        claim, position = world.claims[number], world.positions[number] + off_by
        await world.harness.store.append(claim.lease, position, world.harness.deltas(claim, *"abc"[:count]))
        world.positions[number] = max(world.positions[number], position + count)
        return None

    return step


def _finish(which: int, count: int, is_cancel: bool) -> Step:
    async def step(world: World) -> object:
        if not world.claims:
            return None
        number = which % len(world.claims)
        claim = world.claims[number]
        events = tuple(world.harness.deltas(claim, *"xyz"[:count]))
        ending = Ending(Cancelled() if is_cancel else DONE, blocks=(llm("out"),) * count, events=events)
        return await world.harness.store.finish(claim.lease, world.positions[number], ending)

    return step


def _cancel(which: int) -> Step:
    async def step(world: World) -> object:
        if not world.inferences:
            return None
        target = world.inferences[which % len(world.inferences)]
        return await world.harness.store.request_cancel("local", target, f"reason {which}", is_session=False)

    return step


def _cancel_session(session: str) -> Step:
    return lambda world: world.harness.store.request_cancel("local", session, "", is_session=True)


def _pass_time(seconds: int) -> Step:
    async def step(world: World) -> object:
        world.harness.now += timedelta(seconds=seconds)
        return await world.harness.store.expire(world.harness.now)

    return step


def _update(session: str, revision: int | None) -> Step:
    async def step(world: World) -> object:
        change = SessionChange("renamed", {"n": str(revision)})
        return replace(await world.harness.store.update_session("local", session, change, revision), log="")

    return step


def _delete(session: str, force: bool) -> Step:
    return lambda world: world.harness.store.delete_session("local", session, None, force=force)


_SESSION = st.sampled_from(_SESSIONS)
_NUMBER = st.integers(0, 9)
_OWNER = st.sampled_from(("me", "you"))
_STARTS = st.builds(
    _start,
    _SESSION,
    st.sampled_from(ConflictPolicy),
    st.sampled_from((None, None, None, 0, 1)),
    st.sampled_from(("", "", "", "k1", "k2")),
    st.sampled_from((None, None, 5)),
)
_STEPS = st.one_of(
    _STARTS,
    _STARTS,
    st.builds(_create, st.sampled_from(_PRINCIPALS), _SESSION),
    st.builds(_claim, _OWNER, st.integers(1, 3)),
    st.builds(_claim, _OWNER, st.just(3)),
    st.builds(_append, _NUMBER, st.integers(1, 3), st.sampled_from((0, 0, 0, 1, -1))),
    st.builds(_append, _NUMBER, st.integers(1, 3), st.just(0)),
    st.builds(_finish, _NUMBER, st.integers(0, 3), st.booleans()),
    st.builds(_finish, _NUMBER, st.just(1), st.just(value=False)),
    st.builds(_cancel, _NUMBER),
    st.builds(_cancel_session, _SESSION),
    st.builds(_pass_time, st.sampled_from((1, 10, 90_000))),
    st.builds(_reap, _OWNER),
    st.builds(_reap, _OWNER, st.lists(_NUMBER, max_size=2)),
    st.builds(_update, _SESSION, st.sampled_from((None, None, 1, 2))),
    st.builds(_delete, _SESSION, st.booleans()),
)


async def _outcome(world: World, step: Step) -> str:
    try:
        return world.told(await step(world))
    except Exception as error:  # noqa: BLE001 - a refusal is an outcome as well
        return world.told((type(error), getattr(error, "metadata", None)))


async def _read_everything(world: World) -> str:
    """Return all that can be read. Log tokens are random in one of the stores."""
    store, told = world.harness.store, list[object]()
    for principal in _PRINCIPALS:
        sessions = (await store.list_sessions(principal, {}, 100, None)).items
        told.append([replace(session, log="") for session in sessions])
        for session_id in map(_session_id, sessions):
            told.append((await store.list_inferences(principal, session_id, (), 100, None)).items)
            for view in (TurnView.DELTA, TurnView.FULL):
                told.append((await store.list_turns(principal, session_id, view, 100, None, newest_first=True)).items)
            told.append(await world.harness.events(session_id, principal))
    for owner in ("me", "you"):
        told.append(sorted(await store.heartbeat(owner), key=_inference_id))
    told.append(await store.reap("someone else"))
    return world.told(told)


def _session_id(session: Session) -> str:
    return session.session_id


def _inference_id(running: Running) -> str:
    return running.inference_id


async def _compare(steps: Sequence[Step]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        model = World(await Harness().open(open_memory))
        store = World(await Harness().open(open_sqlite(Path(folder) / "turnwire.db")))
        for step in (_create("local", "s"), *steps):
            assert await _outcome(store, step) == await _outcome(model, step)
        assert await _read_everything(store) == await _read_everything(model)
        await model.harness.end()
        await store.harness.end()


@settings(
    max_examples=_EXAMPLES, deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
@given(st.lists(_STEPS, min_size=10, max_size=_STEPS_MAX))
def test_sqlite_does_what_the_model_does(steps: list[Step]) -> None:
    asyncio.run(_compare(steps))

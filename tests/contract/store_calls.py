"""The calls of a SessionStore, each with what it needs, as a caller sends it and may send it again."""

from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta

from contract.store_harness import DONE, EPOCH, WAITS, Harness, admit, key, llm, marks, user
from turnwire_server.domain.event import Cancelled, Outcome
from turnwire_server.domain.inference import ConflictPolicy, InferenceState, Usage
from turnwire_server.domain.session import NewSession, SessionChange, StepMode
from turnwire_server.domain.turn import TurnView
from turnwire_server.stores.base import Amendment, Base, SessionStore
from turnwire_server.stores.lease import Effect, Ending, Step
from turnwire_server.stores.start import Idempotency

# One call, that is sent as it was each time.
Send = Callable[[], Awaitable[object]]

# Makes the session `s` ready for a call, and returns the call.
Prepare = Callable[[Harness], Awaitable[Send]]

GUARD = Idempotency("CreateSession", "k", b"content")
ANSWER = Idempotency("SubmitToolResults", "k", b"answer")
DATA = {"app.of@v1": "1"}
_FORK_GUARD = Idempotency("ForkSession", "k", b"content")
_WAITS = InferenceState.WAITING_FOR_TOOLS


def calls_about(harness: Harness, session_id: str) -> list[Awaitable[object]]:
    """Return every call that names a session, none of them made yet."""
    store, name = harness.store, ("local", session_id)
    return [
        store.get_session(*name),
        store.update_session(*name, SessionChange("x"), None, harness.mint()),
        store.set_step_mode(*name, StepMode(), harness.mint()),
        store.delete_session(*name, None, force=True),
        harness.fork("fork", session_id),
        harness.start(session_id),
        store.get_first_in_line(*name),
        store.list_inferences(*name, (), 10, None),
        *(store.list_waiting(*name, state, 10, None) for state in WAITS),
        store.read_log(*name, 0, 1),
        store.read_base(*name),
        store.compact(*name, Base(1, b"fold")),
        store.get_turn(*name, 0, TurnView.FULL, 0, 10),
        store.get_turn(*name, None, TurnView.FULL, 0, 10),
        store.list_turns(*name, TurnView.FULL, 10, None, newest_first=True),
    ]


def _create(guard: Idempotency | None) -> Prepare:
    async def prepare(harness: Harness) -> Send:
        return lambda: harness.store.create_session("local", NewSession("t", "new"), "token", guard)

    return prepare


def _fork(guard: Idempotency | None, index: int | None = None) -> Prepare:
    async def prepare(harness: Harness) -> Send:
        await harness.turn("s", "q", "a")
        new = NewSession("t", "new")
        return lambda: harness.store.fork_session("local", "s", index, new, "token", guard)

    return prepare


def _update(revision: int | None) -> Prepare:
    async def prepare(harness: Harness) -> Send:
        return lambda: harness.store.update_session("local", "s", SessionChange("changed"), revision, "token")

    return prepare


def _set_step_mode(step_mode: StepMode | None) -> Prepare:
    async def prepare(harness: Harness) -> Send:
        await harness.store.set_step_mode("local", "s", StepMode(timedelta(hours=1)), harness.mint())
        return lambda: harness.store.set_step_mode("local", "s", step_mode, "token")

    return prepare


def _start(target: str | NewSession, **fields: object) -> Prepare:
    async def prepare(harness: Harness) -> Send:
        await harness.running("s")
        command = harness.command(target, user("q"), **{"conflict_policy": ConflictPolicy.ENQUEUE, **fields})
        return lambda: harness.store.start(command, admit)

    return prepare


async def _displace(harness: Harness) -> Send:
    await harness.waiting("s")
    command = harness.command("s", user("q"), conflict_policy=ConflictPolicy.ROLLBACK)
    return lambda: harness.store.start(command, admit)


async def _displace_queued(harness: Harness) -> Send:
    await harness.start("s")
    command = harness.command("s", user("q"), conflict_policy=ConflictPolicy.ROLLBACK)
    return lambda: harness.store.start(command, admit)


async def _cancel_running(harness: Harness) -> Send:
    claim = await harness.running("s")
    return lambda: harness.cancel(claim.inference, "stop")


async def _cancel_waiting(harness: Harness) -> Send:
    claim = await harness.waiting("s", llm("a"))
    return lambda: harness.cancel(claim.inference, "stop")


def _amend(*, is_released: bool, outcome: Outcome | None = None, guard: Idempotency | None = None) -> Prepare:
    async def prepare(harness: Harness) -> Send:
        claim = await harness.waiting("s", wake_time=harness.now)
        events = tuple(harness.deltas(claim, "x"))
        amendment = Amendment(b"answered", events, (llm("b"),), is_released, outcome)
        inference_id = claim.inference.inference_id
        return lambda: harness.store.amend("local", inference_id, "token", lambda _: amendment, guard)

    return prepare


async def _register(harness: Harness) -> Send:
    await harness.running("s")
    return lambda: harness.store.register("me")


async def _declare_dead(harness: Harness) -> Send:
    await harness.running("s")
    await harness.store.register("you")
    beats = (await harness.store.heartbeat("you")).beats
    return lambda: harness.store.declare_dead("me", beats["me"])


async def _revoke(harness: Harness) -> Send:
    claim = await harness.running("s")
    return lambda: harness.store.revoke("me", [claim.lease.token])


async def _claim(harness: Harness) -> Send:
    await harness.start("s")
    return lambda: harness.store.claim("me", ["t1", "t2"])


async def _claim_lost(harness: Harness) -> Send:
    await harness.lose(await harness.running("s"))
    return lambda: harness.store.claim("me", ["t1", "t2"])


async def _append(harness: Harness) -> Send:
    claim = await harness.running("s")
    events = harness.deltas(claim, "a", "b")
    return lambda: harness.store.append(claim.lease, 0, events)


async def _record_intent(harness: Harness) -> Send:
    claim = await harness.running("s")
    return lambda: harness.store.record_effects(claim.lease, 0, [Effect("a")])


async def _record_outcome(harness: Harness) -> Send:
    claim = await harness.running("s")
    await harness.store.record_effects(claim.lease, 0, [Effect("a")])
    events = harness.deltas(claim, "a")
    return lambda: harness.store.record_effects(claim.lease, 0, [Effect("a", b"A"), Effect("b")], events)


def _commit(then: InferenceState, *pieces: str) -> Prepare:
    async def prepare(harness: Harness) -> Send:
        claim = await harness.running("s")
        await harness.store.record_effects(claim.lease, 0, [Effect("a")])
        events = tuple(harness.deltas(claim, *pieces))
        step = Step(1, (llm("a"),), Usage(), "m", events, b"", then, harness.now, DATA, marks(harness, 1, 2))
        return lambda: harness.store.commit_step(claim.lease, 0, step)

    return prepare


def _hand_back(*, is_loss: bool) -> Prepare:
    async def prepare(harness: Harness) -> Send:
        claim = await harness.running("s")
        await harness.store.append(claim.lease, 0, harness.deltas(claim, "a"))
        return lambda: harness.store.hand_back(claim.lease, 1, is_loss=is_loss)

    return prepare


async def _finish(harness: Harness) -> Send:
    claim = await harness.running("s")
    ending = Ending(DONE, Usage(), "m", (llm("a"),), tuple(harness.deltas(claim, "a")), DATA, marks(harness, 1, 2))
    return lambda: harness.store.finish(claim.lease, 0, ending)


async def _sweep(harness: Harness) -> Send:
    await harness.start("s", timeout=timedelta(seconds=1))
    harness.now += timedelta(seconds=1)
    return lambda: harness.store.sweep(harness.now)


async def _sweep_sessions(harness: Harness) -> Send:
    await harness.session("expired", ttl=timedelta(seconds=1))
    harness.now += timedelta(seconds=1)
    return lambda: harness.store.sweep(harness.now)


async def _compact(harness: Harness) -> Send:
    await harness.turn("s", "q", "a")
    return lambda: harness.store.compact("local", "s", Base(4, b"fold"))


# What writes. The name of a call comes before the colon.
WRITES: Mapping[str, Prepare] = {
    "create_session": _create(None),
    "create_session: with a key": _create(GUARD),
    "fork_session": _fork(None),
    "fork_session: at a turn": _fork(None, 0),
    "fork_session: with a key": _fork(_FORK_GUARD),
    "update_session: at any revision": _update(None),
    "update_session: at a revision": _update(1),
    "start": _start("s"),
    "start: with a key": _start("s", idempotency=key("k")),
    "start: in a new session": _start(NewSession("t")),
    "start: in a new session, with a key": _start(NewSession("t"), idempotency=key("k")),
    "start: displacing what runs": _start("s", conflict_policy=ConflictPolicy.INTERRUPT),
    "start: displacing what waits": _displace,
    "start: displacing what is queued": _displace_queued,
    "set_step_mode": _set_step_mode(StepMode()),
    "set_step_mode: off": _set_step_mode(None),
    "request_cancel: of what runs": _cancel_running,
    "request_cancel: of what waits": _cancel_waiting,
    "amend: in part": _amend(is_released=False),
    "amend": _amend(is_released=True),
    "amend: to the end": _amend(is_released=True, outcome=Cancelled()),
    "amend: in part, with a key": _amend(is_released=False, guard=ANSWER),
    "amend: with a key": _amend(is_released=True, guard=ANSWER),
    "amend: to the end, with a key": _amend(is_released=True, outcome=Cancelled(), guard=ANSWER),
    "register": _register,
    "declare_dead": _declare_dead,
    "revoke": _revoke,
    "claim": _claim,
    "claim: of what is lost": _claim_lost,
    "append": _append,
    "record_effects: before the calls": _record_intent,
    "record_effects: after the calls": _record_outcome,
    "commit_step": _commit(InferenceState.RUNNING, "a", "b"),
    "commit_step: without events": _commit(InferenceState.RUNNING),
    "commit_step: and wait": _commit(_WAITS, "a", "b"),
    "commit_step: and pause": _commit(InferenceState.PAUSED, "a"),
    "hand_back": _hand_back(is_loss=False),
    "hand_back: of what was lost": _hand_back(is_loss=True),
    "finish": _finish,
    "sweep": _sweep,
    "sweep: of a session": _sweep_sessions,
    "compact": _compact,
}


def _read(call: Callable[[SessionStore, str], Awaitable[object]]) -> Prepare:
    """Prepare a call that reads, of a session with a turn."""

    async def prepare(harness: Harness) -> Send:
        claim = await harness.running("s", user("q"))
        ending = Ending(DONE, blocks=(llm("a"),), data=DATA, marks=marks(harness, 1, 2))
        inference = await harness.store.finish(claim.lease, 0, ending)
        await harness.session("waits")
        await harness.waiting("waits", wake_time=harness.now)
        await harness.start("s")
        return lambda: call(harness.store, inference.inference_id)

    return prepare


READS: Mapping[str, Prepare] = {
    "get_session": _read(lambda store, _: store.get_session("local", "s")),
    "list_sessions": _read(lambda store, _: store.list_sessions("local", {}, 9, None)),
    "get_first_in_line": _read(lambda store, _: store.get_first_in_line("local", "s")),
    "heartbeat": _read(lambda store, _: store.heartbeat("me")),
    "get_inference": _read(lambda store, inference_id: store.get_inference("local", inference_id)),
    "list_inferences": _read(lambda store, _: store.list_inferences("local", "s", (), 9, None)),
    "list_waiting": _read(lambda store, _: store.list_waiting("local", "", _WAITS, 9, None)),
    "find_due": _read(lambda store, _: store.find_due(EPOCH, 9)),
    "list_turn_snapshots": _read(
        lambda store, inference_id: store.list_turn_snapshots("local", inference_id, None, 9, None)
    ),
    "read_log": _read(lambda store, _: store.read_log("local", "s", 0, 1)),
    "read_base": _read(lambda store, _: store.read_base("local", "s")),
    "find_retired": _read(lambda store, _: store.find_retired(EPOCH + timedelta(days=1), 9, 0)),
    "get_turn": _read(lambda store, _: store.get_turn("local", "s", 0, TurnView.FULL, 0, 9)),
    "list_turns": _read(lambda store, _: store.list_turns("local", "s", TurnView.FULL, 9, None, newest_first=True)),
}


async def delete(harness: Harness) -> Send:
    """Prepare the one call whose second answer is that nothing is there."""
    log = (await harness.store.get_session("local", "s")).log
    await harness.running("s")
    return lambda: harness.store.delete_session("local", "s", None, force=True, log=log)


CALLS = {**WRITES, **READS, "delete_session": delete}

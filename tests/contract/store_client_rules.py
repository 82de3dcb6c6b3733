"""What clients may do next: one function per rule. Each makes a call out of a step, or none."""

from dataclasses import replace
from datetime import timedelta
from types import MappingProxyType

from contract.store_driver import SESSIONS, Driver, Sent, Slot, Step
from contract.store_model_state import ENDED, PAUSED, WAITING_FOR_TOOLS, Minted
from contract.store_world import Call, Witness
from turnwire_server.domain.errors import DrainingError, SessionBusyError, StepAbortedError, ToolCallNotPendingError
from turnwire_server.domain.event import Cancelled, Failed, Outcome
from turnwire_server.domain.inference import ConflictPolicy, InferenceConfig, Overrides
from turnwire_server.domain.session import NewSession, PauseAction, SessionChange, StepMode
from turnwire_server.domain.turn import PER_TURN_DATA, Block, TurnState, User
from turnwire_server.stores.base import Amendment, Base, Waiting
from turnwire_server.stores.start import Admission, Idempotency, Seat, SessionState, StartCommand, Started

_POLICIES = (
    ConflictPolicy.ENQUEUE,
    ConflictPolicy.INTERRUPT,
    ConflictPolicy.ENQUEUE,
    ConflictPolicy.ROLLBACK,
    ConflictPolicy.REJECT,
)
_TTLS = (None, timedelta(hours=1), timedelta(seconds=8))
_DATA = MappingProxyType({"app.of@v1": "1", min(PER_TURN_DATA): "2"})
_CONFIG = InferenceConfig(temperature=0.1, stop_sequences=("ü",))
_STEP_MODES = (None, StepMode(), StepMode(timedelta(microseconds=1), PauseAction.ABORT))


def create(driver: Driver, step: Step) -> Sent:
    """A client creates a session."""
    principal, session_id = SESSIONS[(3, 3, 0, 3, 1)[step.which]]
    label, ttl, key, is_refused, config = step.take(2, 3, 6, 5, 2)
    new = NewSession(
        session_id,
        labels={"of": "all"} if label else {},
        ttl=_TTLS[ttl],
        profile="p",
        config=_CONFIG if config else InferenceConfig(),
    )
    check = Witness(_refuse if is_refused == 4 else _accept)
    call = Call("create_session", principal, new, driver.world.mint("log"), _key("CreateSession", key), check)
    return Sent(call, Slot())


def may_fork(driver: Driver) -> bool:
    """Return whether there is a session to fork."""
    return bool(_with_turns(driver))


def _with_turns(driver: Driver) -> list[tuple[str, str]]:
    sessions = driver.world.model.sessions.items()
    return [name for name, session in sessions if session.turns and session.turns[0].noun.state is TurnState.CLOSED]


def fork(driver: Driver, step: Step) -> Sent:
    """A client forks a session, which may be a fork itself, at a turn that there may be."""
    at, ttl, key, name, is_refused = step.take(6, 3, 8, 8, 5)
    known = _with_turns(driver)
    principal, session_id = known[step.which % len(known)] if known and step.who != 2 else _session(driver, step)
    session = driver.world.model.sessions.get((principal, session_id))
    newest = len(session.turns) - 1 if session else 0
    index = (None, newest, newest // 2, 0, newest - 1, newest + 1)[at]
    taken = {7: session_id, 6: "s", 5: "u"}.get(name, driver.world.mint("fork"))
    new = NewSession(taken, labels={"of": "all"}, ttl=_TTLS[ttl])
    check = Witness(_refuse if is_refused == 4 else _accept)
    token, guard = driver.world.mint("log"), _key("ForkSession", key)
    index = None if index is None else max(index, 0)
    return Sent(Call("fork_session", principal, session_id, index, new, token, guard, check), Slot())


def _session(driver: Driver, step: Step) -> tuple[str, str]:
    """Return a session: one that there always is, or mostly; or a fork."""
    forks = [name for name in driver.world.model.sessions if name not in SESSIONS]
    if forks and step.who == 2:
        return forks[step.which % len(forks)]
    return SESSIONS[(0, 0, 1, 3, 2)[step.which]]


def _accept() -> None:
    pass


def _refuse() -> None:
    raise DrainingError


def _key(rpc: str, number: int) -> Idempotency | None:
    names = {3: ("k1", b"same"), 4: ("k2", b"same"), 5: ("k1", b"other")}
    return Idempotency(rpc, *names[number]) if number in names else None


def start(driver: Driver, step: Step) -> Sent:
    """A client starts an inference."""
    policy, key, timeout, parent, is_new, is_recorded, by = step.take(5, 6, 3, 12, 6, 2, 6)
    owner = driver.owners[by] if by < len(driver.owners) else None
    seat = Seat(owner.id, driver.world.mint("seat")) if owner else None
    is_forked = step.who == 2 or step.which == 3
    principal, session_id = SESSIONS[(0, 0, 1, 0, 2)[step.which]]
    if is_new == 5:
        principal, session_id = SESSIONS[-1]
    elif is_forked:
        principal, session_id = _session(driver, replace(step, who=2))
    command = StartCommand(
        principal,
        driver.world.mint("inference"),
        NewSession(session_id, labels={"of": "all"}) if is_new == 5 else session_id,
        (Block("", User(f"to {session_id}")), Block("b", User("more")))[: 1 + step.who % 2],
        {9: 2, 10: 0, 11: 1}.get(parent),
        overrides=Overrides(record_snapshots=bool(is_recorded)),
        conflict_policy=_POLICIES[policy],
        idempotency=_key("StartInference", key),
        timeout={1: timedelta(seconds=5), 2: timedelta(seconds=100)}.get(timeout),
        attempts_max=2,
        metadata={"app.by@v1": "3"},
        data=_DATA,
    )

    def done(started: Started) -> None:
        driver.inferences.append((principal, started.inference.inference_id))
        if owner and seat and started.claim and owner.is_up and owner.id == seat.owner:
            driver.take(owner, started.claim)
            driver.counts["started: seated"] += 1
        driver.counts[f"started: {command.conflict_policy.name}{'' if started.created else ', made before'}"] += 1

    return Sent(Call("start", command, Witness(_admit), seat), Slot(), done)


def _admit(command: StartCommand, state: SessionState) -> Admission:
    if state.unfinished and command.conflict_policy is ConflictPolicy.REJECT:
        raise SessionBusyError(session_id=state.session.session_id, inference_id=state.unfinished[0].inference_id)
    return Admission("default", "scripted", InferenceConfig(model="m1"))


def request_cancel(driver: Driver, step: Step) -> Sent | None:
    """A client cancels an inference, which may have ended."""
    unfinished = [each for each in driver.world.model.inferences() if each.noun.state not in ENDED]
    targets = [(each.session.principal, each.noun.inference_id) for each in unfinished]
    targets = driver.inferences if step.how % 4 == 3 else targets or driver.inferences
    if not targets:
        return start(driver, step)
    principal, inference_id = targets[step.which % len(targets)]
    return Sent(Call("request_cancel", principal, inference_id, f"reason {step.how}"), Slot())


def amend(driver: Driver, step: Step) -> Sent | None:
    """A client answers an inference that waits, or does not."""
    waiting = [each for each in driver.world.model.inferences() if each.noun.state in (WAITING_FOR_TOOLS, PAUSED)]
    targets = [(each.session.principal, each.noun.inference_id) for each in waiting] or driver.inferences
    if not targets:
        return start(driver, step)
    principal, inference_id = targets[step.which % len(targets)]
    return amend_one(driver, principal, inference_id, step)


def amend_one(driver: Driver, principal: str, inference_id: str, step: Step) -> Sent:
    """A client answers an inference."""
    is_partial, events, is_refused, end, key, blocks = step.take(2, 3, 6, 5, 4, 2)
    found = driver.world.model.find(principal, inference_id)
    session_id = found.noun.session_id if found else ""
    outcomes: dict[int, Outcome] = {3: Failed(StepAbortedError(pause="p").failure()), 4: Cancelled()}
    amendment = Amendment(
        f"amended {step.how}".encode(),
        driver.deltas(session_id, inference_id, events),
        is_released=not is_partial,
        blocks=(Block("", User(f"answered {step.how}")),) * blocks,
        outcome=outcomes.get(end),
    )

    def decide(_: Waiting) -> Amendment:
        if is_refused == 5:
            raise ToolCallNotPendingError(inference_id=inference_id, tool_calls="call-1")
        return amendment

    guard = _key(f"answers to {inference_id}", (0, 3, 3, 5)[key])
    call = Call("amend", principal, inference_id, driver.world.mint("amend"), Witness(decide), guard)
    what = "ended" if amendment.outcome else "partly" if is_partial else "released"
    return Sent(call, Slot(), kind=f"amend, {what}{', with a key' if guard else ''}")


def update(driver: Driver, step: Step) -> Sent:
    """A client changes a session."""
    principal, session_id = _session(driver, step)
    known = driver.world.model.sessions.get((principal, session_id))
    labels, name, revision, config = step.take(3, 2, 4, 3)
    change = SessionChange(
        f"name {step.how}" if name else None,
        {1: {"of": "all"}, 2: {"of": "none"}}.get(labels),
        {"app.x@v1": "1"},
        config={1: InferenceConfig(), 2: _CONFIG}.get(config),
    )
    expected = {1: 1, 2: known.noun.revision if known else 1, 3: 2}.get(revision)
    return Sent(Call("update_session", principal, session_id, change, expected, driver.world.mint("update")), Slot())


def set_step_mode(driver: Driver, step: Step) -> Sent:
    """A client turns step mode on or off."""
    principal, session_id = _session(driver, step)
    mode = _STEP_MODES[step.how % len(_STEP_MODES)]
    return Sent(Call("set_step_mode", principal, session_id, mode, driver.world.mint("step mode")), Slot())


def delete(driver: Driver, step: Step) -> Sent:
    """A client deletes a session."""
    principal, session_id = _session(driver, step)
    is_mild, log, revision = step.take(3, 4, 4)
    known = driver.world.model.sessions.get((principal, session_id))
    known_log = known.noun.log.bound if known and isinstance(known.noun.log, Minted) else ""
    only = {1: known_log, 2: known_log, 3: "another"}.get(log, "")
    call = Call("delete_session", principal, session_id, {3: 1}.get(revision), force=is_mild != 2, log=only)
    return Sent(call, Slot())


def compact(driver: Driver, step: Step) -> Sent:
    """The server cuts a log, as far as it may or further."""
    principal, session_id = _session(driver, step)
    session = driver.world.model.sessions.get((principal, session_id))
    head = len(session.log) if session else 0
    firsts = [each.shown().first_sequence for each in session.line()] if session else []
    allowed = min([head + 1, *firsts]) - 1
    through = (allowed, allowed // 2, allowed, allowed + 1, head + 1)[step.how % 5]
    retired = driver.world.model.find_retired(driver.world.now - timedelta(seconds=(0, 5, 20)[step.who]))
    if retired and step.how % 2:
        principal, session_id, through = min(
            (each.principal, each.session_id, each.through_sequence) for each in retired
        )
    return Sent(Call("compact", principal, session_id, Base(through, f"fold {through}".encode())), Slot())


def sweep(driver: Driver, step: Step) -> Sent:
    """Time passes, and the server does what is due."""
    driver.world.now += timedelta(seconds=(1, 6, 11, 6, 11, 100, 90_000)[step.how % 7])
    return Sent(Call("sweep", driver.world.now), Slot(), is_dropped=True)


def resend(driver: Driver, step: Step) -> Sent | None:
    """A client that got no answer sends again what it sent, or gives up: some time it has to."""
    if not driver.clients:
        return start(driver, step)
    slot = driver.clients.pop(step.which % len(driver.clients))
    sent = slot.pending
    return sent if sent and driver.may_send_again(sent.call, slot.begin_time) and step.how % 8 != 7 else None


def land(driver: Driver, step: Step) -> Sent | None:
    """What was under way for long arrives; nobody waits for it any more."""
    if not driver.late:
        return None
    call, begin_time = driver.late.pop(step.which % len(driver.late))
    sent = Sent(call, Slot(), is_dropped=True, kind=f"late {call.name}")
    return sent if driver.may_send_again(call, begin_time) else None

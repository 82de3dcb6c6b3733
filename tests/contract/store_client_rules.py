"""What clients may do next: one function per rule. Each makes a call out of a step, or none."""

from datetime import timedelta
from types import MappingProxyType

from contract.store_driver import SESSIONS, Driver, Sent, Slot, Step
from contract.store_model_state import ENDED, PAUSED, WAITING_FOR_TOOLS, Minted
from contract.store_world import Call, Witness
from turnwire_server.domain.errors import DrainingError, SessionBusyError, StepAbortedError, ToolCallNotPendingError
from turnwire_server.domain.event import Cancelled, Failed
from turnwire_server.domain.inference import ConflictPolicy, InferenceConfig, Overrides
from turnwire_server.domain.session import NewSession, PauseAction, SessionChange, StepMode
from turnwire_server.domain.turn import PER_TURN_DATA, Block, User
from turnwire_server.stores.base import Amendment, Base, Waiting
from turnwire_server.stores.start import Admission, Idempotency, SessionState, StartCommand, Started

_POLICIES = (
    ConflictPolicy.ENQUEUE,
    ConflictPolicy.INTERRUPT,
    ConflictPolicy.ENQUEUE,
    ConflictPolicy.ROLLBACK,
    ConflictPolicy.REJECT,
)
_DATA = MappingProxyType({"app.of@v1": "1", min(PER_TURN_DATA): "2"})
_CONFIG = InferenceConfig(temperature=0.1, stop_sequences=("ü",))
_STEP_MODES = (None, StepMode(), StepMode(timedelta(microseconds=1), PauseAction.ABORT))


def create(driver: Driver, step: Step) -> Sent:
    """A client creates a session."""
    principal, session_id = SESSIONS[(3, 3, 0, 3, 1)[step.which]]
    label, has_ttl, key, is_refused, config = step.take(2, 2, 6, 5, 2)
    new = NewSession(
        session_id,
        labels={"of": "all"} if label else {},
        ttl=timedelta(hours=1) if has_ttl else None,
        profile="p",
        config=_CONFIG if config else InferenceConfig(),
    )
    check = Witness(_refuse if is_refused == 4 else _accept)
    call = Call("create_session", principal, new, driver.world.mint("log"), _key("CreateSession", key), check)
    return Sent(call, Slot())


def _session(step: Step) -> tuple[str, str]:
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
    policy, key, timeout, parent, is_new, is_recorded = step.take(5, 6, 3, 12, 6, 2)
    principal, session_id = SESSIONS[-1 if is_new == 5 else (0, 0, 1, 0, 2)[step.which]]
    command = StartCommand(
        principal,
        driver.world.mint("inference"),
        NewSession(session_id, labels={"of": "all"}) if is_new == 5 else session_id,
        (Block("", User(f"to {session_id}")), Block("b", User("more")))[: 1 + step.who % 2],
        {10: 0, 11: 1}.get(parent),
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
        driver.counts[f"started: {command.conflict_policy.name}{'' if started.created else ', made before'}"] += 1

    return Sent(Call("start", command, Witness(_admit)), Slot(), done)


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
    is_partial, events, is_refused, end, key, blocks = step.take(2, 3, 6, 5, 6, 2)
    found = driver.world.model.find(principal, inference_id)
    session_id = found.noun.session_id if found else ""
    amendment = Amendment(
        f"amended {step.how}".encode(),
        driver.deltas(session_id, inference_id, events),
        is_released=not is_partial,
        blocks=(Block("", User(f"answered {step.how}")),) * blocks,
        outcome={3: Failed(StepAbortedError(pause="p").failure()), 4: Cancelled()}.get(end),
    )

    def decide(_: Waiting) -> Amendment:
        if is_refused == 5:
            raise ToolCallNotPendingError(inference_id=inference_id, tool_calls="call-1")
        return amendment

    guard = _key(f"answers to {inference_id}", key)
    call = Call("amend", principal, inference_id, driver.world.mint("amend"), Witness(decide), guard)
    what = "ended" if amendment.outcome else "partly" if is_partial else "released"
    return Sent(call, Slot(), kind=f"amend, {what}{', with a key' if guard else ''}")


def update(driver: Driver, step: Step) -> Sent:
    """A client changes a session."""
    principal, session_id = _session(step)
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
    principal, session_id = _session(step)
    mode = _STEP_MODES[step.how % len(_STEP_MODES)]
    return Sent(Call("set_step_mode", principal, session_id, mode, driver.world.mint("step mode")), Slot())


def delete(driver: Driver, step: Step) -> Sent:
    """A client deletes a session."""
    principal, session_id = _session(step)
    is_mild, log, revision = step.take(3, 4, 4)
    known = driver.world.model.sessions.get((principal, session_id))
    known_log = known.noun.log.bound if known and isinstance(known.noun.log, Minted) else ""
    only = {1: known_log, 2: known_log, 3: "another"}.get(log, "")
    call = Call("delete_session", principal, session_id, {3: 1}.get(revision), force=is_mild != 2, log=only)
    return Sent(call, Slot())


def compact(driver: Driver, step: Step) -> Sent:
    """The server cuts a log, as far as it may or further."""
    principal, session_id = _session(step)
    session = driver.world.model.sessions.get((principal, session_id))
    head = len(session.log) if session else 0
    firsts = [each.shown().first_sequence for each in session.line()] if session else []
    allowed = min([head + 1, *firsts]) - 1
    through = (allowed, allowed // 2, allowed, allowed + 1, head + 1)[step.how % 5]
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

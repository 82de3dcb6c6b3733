"""What owners may do next: one function per rule. Each makes a call out of a step, or none."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta

from contract.store_client_rules import amend, fork, may_fork, start
from contract.store_driver import Driver, Owner, Run, Sent, Slot, Step
from contract.store_model_state import PAUSED, QUEUED, RUNNING, WAITING_FOR_TOOLS
from contract.store_world import Call
from turnwire_server.domain.errors import AttemptLostError, EngineFailedError
from turnwire_server.domain.event import Cancelled, Failed, Outcome, Succeeded
from turnwire_server.domain.inference import FinishClass, InferenceState, Usage
from turnwire_server.domain.turn import PER_TURN_DATA, Block, LlmText, SnapshotMark, SnapshotPhase
from turnwire_server.stores.lease import Effect, Ending, Fenced, Lease
from turnwire_server.stores.lease import Step as CommittedStep

Rule = Callable[[Driver, Step], Sent | None]
RunRule = Callable[[Driver, Run, Step], Sent]

_SUCCEEDED = Succeeded(FinishClass.COMPLETED)


def die(driver: Driver, step: Step) -> None:
    """A process is killed."""
    owner = driver.owners[step.who]
    if owner.is_up and not owner.waits():
        driver.die(owner)
        driver.counts["died"] += 1


def restart(driver: Driver, step: Step) -> Sent | None:
    """A process that is down begins again."""
    owner = driver.owners[step.who]
    if owner.is_busy or owner.is_up:
        return None
    return owner.pending or driver.restart(owner)


def claim(driver: Driver, step: Step) -> Sent | None:
    """An owner claims, as before if it got no answer."""
    owner = driver.owners[step.who]
    if owner.is_busy:
        return None
    if not owner.is_up:
        return restart(driver, step)
    limit, only_lost = step.take(3, 8)
    return owner.pending or driver.claim(owner, 1 + limit, only_lost=only_lost == 7)


def beat(driver: Driver, step: Step) -> Sent | None:
    """An owner beats; one that just heard of strangers revokes them first."""
    owner = driver.owners[step.who]
    if owner.waits():
        return None
    if not owner.is_up:
        return restart(driver, step)
    return driver.revoke(owner) if owner.strangers else driver.beat(owner)


def declare_dead(driver: Driver, step: Step) -> Sent | None:
    """An owner declares another one dead that may live, as soon as one has heard of another."""
    watchers = [owner for owner in _from(driver, step) if owner.is_up and not owner.waits()]
    known = [(owner, other) for owner in watchers for other in driver.heard_of(owner)]
    if known:
        return driver.declare_dead(*known[step.which % len(known)])
    idle = [number for number, owner in enumerate(driver.owners) if owner in watchers and not owner.runs]
    return beat(driver, replace(step, who=idle[0] if idle else step.who))


def give_up(driver: Driver, step: Step) -> None:
    """An owner asks no more for answers that it did not get, and forgets what the calls were about."""
    for owner in _from(driver, step):
        runs = [run for run in owner.runs if run.pending]
        if owner.is_up and not owner.waits() and (owner.pending or runs):
            owner.pending = None
            for run in runs:
                driver.drop(run)
            driver.counts[f"given up: {'run' if runs else 'claim'}"] += 1
            return


def _on_run(make: RunRule) -> Rule:
    """Return the rule that does something with a run: but first what must be sent again, and what was lost."""

    def rule(driver: Driver, step: Step) -> Sent | None:
        runs = [run for owner in _from(driver, step) for run in owner.runs]
        if not runs:
            return _get_run(driver, step)
        run = runs[step.which % len(runs)]
        if run.is_busy:
            return None
        return run.pending or (recover if run.is_lost else make)(driver, run, step)

    return rule


def _get_run(driver: Driver, step: Step) -> Sent | None:
    """Do what is needed first before something can run."""
    states = {inference.noun.state for inference in driver.world.model.inferences()}
    if not states & {QUEUED, RUNNING}:
        return amend(driver, step) if states & {WAITING_FOR_TOOLS, PAUSED} else start(driver, step)
    up = [number for number, owner in enumerate(driver.owners) if owner.is_up]
    return claim(driver, replace(step, who=up[step.who % len(up)] if up else step.who))


def recover(driver: Driver, run: Run, step: Step) -> Sent:
    """Go on with an inference that was lost, or end it."""
    is_loss = bool(step.how % 3)
    sent = hand_back_run(driver, run, replace(step, how=1)) if is_loss else finish_run(driver, run, step)
    sent.kind = f"recover by {sent.call.name}"
    return sent


def append_run(driver: Driver, run: Run, step: Step) -> Sent:
    """Append events."""
    events = _said(driver, run, 1 + step.how % 3)
    return _write(driver, run, Call("append", run.claim.lease, run.position, events), len(events))


def record_run(driver: Driver, run: Run, step: Step) -> Sent:
    """Say that tools are about to be called, or what came of it; sometimes of one that was never called."""
    first, is_begun, count, calls, is_unknown = step.take(2, 3, 3, 2, 8)
    found = driver.world.model.find(run.claim.lease.principal, run.claim.lease.inference_id)
    names = [f"call-{number}" for number in range(first, first + 1 + calls)]
    known = [name for name in names if found and name in found.effects]
    outcome = f"outcome {step.how}".encode() if is_unknown == 7 or (known and is_begun) else None
    effects = [Effect(name, outcome) for name in (known if outcome and is_unknown != 7 else names)]
    events = _said(driver, run, count)
    return _write(driver, run, Call("record_effects", run.claim.lease, run.position, effects, events), count)


def commit_run(driver: Driver, run: Run, step: Step) -> Sent:
    """Commit a step, and go on."""
    return _commit(driver, run, step, RUNNING)


def wait_run(driver: Driver, run: Run, step: Step) -> Sent:
    """Commit a step, and wait for the client."""
    return _commit(driver, run, step, PAUSED if step.how % 3 == 2 else WAITING_FOR_TOOLS)


def hand_back_run(driver: Driver, run: Run, step: Step) -> Sent:
    """Put an inference back to its line."""
    is_loss = step.how % 2 == 1
    call = Call("hand_back", run.claim.lease, run.position, is_loss=is_loss)
    return _write(driver, run, call, 0, is_end=True, kind=f"hand_back, {'lost' if is_loss else 'as it was'}")


def finish_run(driver: Driver, run: Run, step: Step) -> Sent:
    """End an inference."""
    outcomes: tuple[Outcome, ...] = (
        _SUCCEEDED,
        Failed(EngineFailedError(engine="scripted").failure()),
        Cancelled(),
        Failed(AttemptLostError(attempt=run.claim.inference.attempt).failure()),
    )
    outcome, count, blocks, data, marks = step.take(4, 3, 2, 3, 3)
    ending = Ending(
        Cancelled() if run.is_cancel_requested else outcomes[outcome],
        Usage(1, 2, 3, 4),
        "m3" if blocks else "",
        (Block("", LlmText(f"ended {step.how}")),) * blocks,
        _said(driver, run, count),
        _data(data, step),
        _marks(driver, run, marks, blocks),
    )
    return _write(driver, run, Call("finish", run.claim.lease, run.position, ending), count, is_end=True)


append, record = _on_run(append_run), _on_run(record_run)
commit, wait = _on_run(commit_run), _on_run(wait_run)
hand_back, finish = _on_run(hand_back_run), _on_run(finish_run)


def amend_or_wait(driver: Driver, step: Step) -> Sent | None:
    """A client answers what waits for it; most often something has to wait first."""
    waits = any(each.noun.state in (WAITING_FOR_TOOLS, PAUSED) for each in driver.world.model.inferences())
    return amend(driver, step) if waits or step.how % 4 == 3 else wait(driver, step)


def fork_or_finish(driver: Driver, step: Step) -> Sent | None:
    """A client forks a session; most often a turn has to be closed first."""
    return fork(driver, step) if may_fork(driver) or step.how % 8 == 7 else finish(driver, step)


_INTRUSIONS = (append_run, finish_run, commit_run, record_run, wait_run, hand_back_run)


def intrude(driver: Driver, step: Step) -> Sent | None:
    """Someone writes who may not: an owner that was replaced, or from another position, or for another principal."""
    running = [run for owner in driver.owners for run in owner.runs]
    now = {each.noun.inference_id: each for each in driver.world.model.inferences() if each.owner}
    replaced = [ghost for ghost in driver.ghosts if ghost.claim.inference.inference_id in now]
    runs = (replaced, replaced, replaced, driver.ghosts[-4:], running)[step.which] or driver.ghosts or running
    if not runs:
        return claim(driver, step)
    known = runs[step.how % len(runs)]
    is_other, what, off, how = step.take(6, 6, 4, 8)
    lease = known.claim.lease
    if is_other == 5:
        lease = Lease("other" if lease.principal == "local" else "local", lease.inference_id, lease.token)
    position = known.position + (0, 0, 1, -1)[off]
    if known in replaced and off:
        position = now[lease.inference_id].position  # it has read how far the other one is
    if known in running and position in (-1, known.position):
        position = known.position + 2  # from its own position it would be no intruder
    ghost = Run(claim=replace(known.claim, lease=lease), position=max(position, 0), step=known.step)
    sent = _INTRUSIONS[what](driver, ghost, replace(step, how=how))
    return Sent(sent.call, Slot(), is_dropped=True, kind=f"intruding {sent.call.name}")


def _from(driver: Driver, step: Step) -> list[Owner]:
    return driver.owners[step.who :] + driver.owners[: step.who]


def _commit(driver: Driver, run: Run, step: Step, then: InferenceState) -> Sent:
    blocks, count, model, data, marks, wakes, is_untold = step.take(3, 3, 2, 3, 3, 3, 4)
    if then is not RUNNING and is_untold != 3:
        count = max(count, 1)  # the last of the events tells of it
    committed = CommittedStep(
        run.step + 1,
        tuple(Block("" if number else "c", LlmText(f"step {step.how}")) for number in range(blocks)),
        Usage(10, 20, 30, 40),
        "m2" if model else "",
        _said(driver, run, count),
        f"checkpoint {step.how}".encode(),
        then,
        {1: driver.world.now, 2: driver.world.now + timedelta(seconds=7)}.get(wakes),
        _data(data, step),
        _marks(driver, run, marks, blocks),
    )
    call = Call("commit_step", run.claim.lease, run.position, committed)
    return _write(driver, run, call, count, is_end=then is not RUNNING, kind=f"commit_step, {then.name}")


def _data(number: int, step: Step) -> Mapping[str, str] | None:
    """Return what the data of a turn are from now on, None if they stay."""
    return {1: {}, 2: {"app.of@v1": f"{step.how % 3}", min(PER_TURN_DATA): "3"}}.get(number)


def _marks(driver: Driver, run: Run, number: int, added: int) -> tuple[SnapshotMark, ...]:
    """Return marks of a turn to which blocks are added: as it is, and as it will be."""
    found = driver.world.model.find(run.claim.lease.principal, run.claim.lease.inference_id)
    before = found.turn.shown().block_count if found and found.turn else 0
    phases = {1: (SnapshotPhase.POST_TOOLS,), 2: (SnapshotPhase.PRE_INFERENCE, SnapshotPhase.POST_INFERENCE)}
    counts = (before, before + added)
    return tuple(
        SnapshotMark(phase, run.step + 1, count, driver.world.now)
        for phase, count in zip(phases.get(number, ()), counts, strict=False)
    )


def _said(driver: Driver, run: Run, count: int) -> tuple[bytes, ...]:
    inference = run.claim.inference
    return driver.deltas(inference.session_id, inference.inference_id, count)


def _write(driver: Driver, run: Run, call: Call, count: int, *, is_end: bool = False, kind: str = "") -> Sent:
    def done(_: object) -> None:
        run.position += count
        run.step += call.name == "commit_step"
        if is_end:
            driver.drop(run)

    def failed(error: Exception) -> None:
        if isinstance(error, Fenced):
            driver.drop(run)

    return Sent(call, run, done, failed, kind=kind)

"""Step control: the pauses that step mode makes in the tool loop."""

from contextlib import suppress
from datetime import datetime
from functools import partial

from turnwire_server.domain.errors import (
    InferenceNotFoundError,
    InferenceNotWaitingError,
    PauseNotFoundError,
    SessionNotFoundError,
)
from turnwire_server.domain.session import PauseAction, StepMode
from turnwire_server.events.patience import Patience
from turnwire_server.runtime.answers import Answering, decide_release
from turnwire_server.runtime.checkpoint import Checkpoint, Pause
from turnwire_server.runtime.ports import Ports
from turnwire_server.runtime.step_changes import Moment
from turnwire_server.stores.lease import Claim

# What a line for people has at most, in characters: a model may ask for hundreds of tools, and pauses are listed.
SUMMARY_LENGTH_MAX = 256


class StepModeView:
    """The step mode of one session, which is looked at as often as it may have changed. `was_off`: since when it is."""

    def __init__(self, claim: Claim, ports: Ports, patience: Patience, was_off: Moment | None) -> None:
        self._place = claim.lease.principal, claim.inference.session_id
        self._ports = ports
        self._patience = patience
        self._was_off = was_off

    async def read(self) -> StepMode | None:
        """Return the step mode, None if it is off. Errors: SessionNotFoundError, StoreUnavailableError."""
        changes = self._ports.step_changes
        if self._was_off and not changes.is_old(self._was_off):
            return None
        moment = changes.now()
        session = await self._patience.call(lambda: self._ports.store.get_session(*self._place))
        self._was_off = None if session.step_mode else moment
        return session.step_mode


def pause_of(name: str, phase: str, at: Checkpoint, step_mode: StepMode, now: datetime) -> Pause:
    """Return the pause of an inference that goes on at a checkpoint."""
    call = f"after engine call {at.iteration}" if phase == "after_inference" else "after the tools"
    tools = ", ".join(planned.name for planned in at.calls)
    summary = f"{call}; it asks for {tools}" if tools else f"{call}; next: {at.next.value}"
    if len(summary) > SUMMARY_LENGTH_MAX:
        summary = f"{summary[: SUMMARY_LENGTH_MAX - 3]}..."
    return Pause(name, phase, summary, now, now + step_mode.deadline, step_mode.deadline_action)


async def release_if_off(ports: Ports, patience: Patience, claim: Claim, pause: Pause) -> None:
    """Release a pause, once it is committed, if step mode is off: whoever turned it off before did not see the pause.

    Errors: StoreUnavailableError.
    """
    store, principal, token = ports.store, claim.lease.principal, ports.mint()
    answering = Answering(ports.clock.now(), ports.encode)
    decide = partial(decide_release, pause_name=pause.id, action=PauseAction.CONTINUE, answering=answering)
    with suppress(SessionNotFoundError, InferenceNotFoundError, InferenceNotWaitingError, PauseNotFoundError):
        session = await patience.call(lambda: store.get_session(principal, claim.inference.session_id))
        if session.step_mode is None:
            inference_id = claim.inference.inference_id
            await patience.call(lambda: store.amend(principal, inference_id, token, decide))


def inference_of(pause: str) -> str:
    """Return the inference_id that the name of a pause begins with: a pause is found by its inference."""
    return pause.rpartition(".")[0]

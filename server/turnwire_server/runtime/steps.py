"""Step control: the pauses that step mode makes in the tool loop."""

from datetime import datetime

from turnwire_server.domain.session import StepMode
from turnwire_server.runtime.checkpoint import Checkpoint, Pause

# What a line for people has at most, in characters: a model may ask for hundreds of tools, and pauses are listed.
SUMMARY_LENGTH_MAX = 256


def pause_of(name: str, phase: str, at: Checkpoint, step_mode: StepMode, now: datetime) -> Pause:
    """Return the pause of an inference that goes on at a checkpoint."""
    call = f"after engine call {at.iteration}" if phase == "after_inference" else "after the tools"
    tools = ", ".join(planned.name for planned in at.calls)
    summary = f"{call}; it asks for {tools}" if tools else f"{call}; next: {at.next.value}"
    if len(summary) > SUMMARY_LENGTH_MAX:
        summary = f"{summary[: SUMMARY_LENGTH_MAX - 3]}..."
    return Pause(name, phase, summary, now, now + step_mode.deadline, step_mode.deadline_action)


def inference_of(pause: str) -> str:
    """Return the inference_id that the name of a pause begins with: a pause is found by its inference."""
    return pause.rpartition(".")[0]

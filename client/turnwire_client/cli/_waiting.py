"""What an inference waits for: found, told with the commands that answer it, and given to programs."""

import shlex
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from turnwire.v1.debug_service_pb2 import Pause
from turnwire.v1.inference_pb2 import Inference, InferenceState
from turnwire.v1.tool_pb2 import ToolCall
from turnwire_client._client import Client
from turnwire_client._tools import Required
from turnwire_client.cli import _output as out


@dataclass(frozen=True, slots=True)
class Wait:
    """An inference, and what it waits for: answers to tool calls, or the release of a pause."""

    inference: Inference
    required: Required = Required()
    pause: Pause | None = None


class Waits(Exception):  # noqa: N818 - not an error: it is the client's turn
    """The inference goes no further by itself."""

    def __init__(self, wait: Wait) -> None:
        super().__init__(f"the inference is {out.state_name(wait.inference.state)}")
        self.wait = wait


async def find_pause(client: Client, inference: Inference) -> Pause | None:
    """The pause of an inference that is PAUSED; None if it was released meanwhile. Raises RequestError."""
    async with aclosing(client.list_pauses(inference.session_id)) as pauses:
        async for pause in pauses:
            if pause.inference_id == inference.inference_id:
                return pause
    return None


async def wait_of(client: Client, inference: Inference, required: Required) -> Wait | None:
    """What an inference waits for, if it does; `required` is what is known of its tools. Raises RequestError."""
    if required:
        return Wait(inference, required)
    if inference.state != InferenceState.INFERENCE_STATE_PAUSED:
        return None
    pause = await find_pause(client, inference)
    return Wait(inference, pause=pause) if pause is not None else None


def to_dict(wait: Wait) -> dict[str, Any]:
    """The inference and what it waits for, for programs."""
    content: dict[str, Any] = {"inference": out.to_dict(wait.inference)}
    required = wait.required
    if required:
        found: dict[str, Any] = {
            "calls": [out.to_dict(call) for call in required.calls],
            "approvals": [out.to_dict(call) for call in required.approvals],
        }
        if required.deadline_time is not None:
            found["deadline_time"] = required.deadline_time.isoformat().replace("+00:00", "Z")
        content["required"] = found
    if wait.pause is not None:
        content["pause"] = out.to_dict(wait.pause)
    return content


def tell(wait: Wait) -> None:
    """What is waited for, on stderr, and with which command it is answered."""
    out.stderr.print(f"[bold]{out.state_name(wait.inference.state)}[/]")
    required, pause = wait.required, wait.pause
    _tell_calls("approval", required.approvals)
    _tell_calls("result", required.calls)
    if required:
        approve = [f"--approve {_quoted(call)}" for call in required.approvals]
        result = [f"--result {_quoted(call)}=JSON" for call in required.calls]
        command = " ".join([out.program(), "answer", wait.inference.inference_id, *approve, *result])
        out.print_note(f"Answer with: {command}")
        others = [*(["--deny CALL=REASON"] if approve else []), *(["--error CALL=TEXT"] if result else [])]
        out.print_note(f"or with {' and '.join(others)}; then see what comes of it with:")
        out.print_note(f"  {out.program()} wait {wait.inference.inference_id}")
    if required.deadline_time is not None:
        out.print_note(f"What has no answer at {required.deadline_time:%Y-%m-%d %H:%M:%S} UTC fails by itself.")
    if pause is not None:
        out.stderr.print(f"[bold]pause[/]  {out.plain(pause.id)}  {out.plain(pause.summary)}")
        out.print_note(f"Release it with: {out.program()} steps release {pause.id}")
        until = pause.deadline_time.ToDatetime()
        out.print_note(f"It ends by itself at {until:%Y-%m-%d %H:%M:%S} UTC: {out.action_name(pause.deadline_action)}.")


def _tell_calls(what: str, calls: Sequence[ToolCall]) -> None:
    for call in calls:
        out.stderr.print(f"[bold]{what:<8}[/]  {out.plain(call.id)}  {out.plain(out.call_line(call))}")


def _quoted(call: ToolCall) -> str:
    return shlex.quote(call.id)

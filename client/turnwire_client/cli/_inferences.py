"""What start, wait, cancel and watch do."""

import asyncio

import typer

from turnwire.v1.inference_pb2 import Inference, InferenceConfig
from turnwire.v1.session_pb2 import NewSession
from turnwire.v1.turn_pb2 import Block, SystemBlock, UserBlock
from turnwire_client._client import Client
from turnwire_client._errors import TurnwireError
from turnwire_client._handle import InferenceHandle
from turnwire_client._requests import Conflict
from turnwire_client._watch import EventStream, Start, Until
from turnwire_client.cli import _failure, _run
from turnwire_client.cli import _output as out
from turnwire_client.cli._sessions import Command


def start(
    text: str,
    session_id: str,
    *,
    system: str,
    profile: str,
    model: str,
    key: str,
    conflict: Conflict,
    timeout: float | None,
    follow: bool,
    as_json: bool,
) -> Command:
    async def command(client: Client) -> None:
        blocks = [Block(system=SystemBlock(text=system))] if system else []
        blocks += [Block(user=UserBlock(text=text))] if text else []
        handle = await client.start_inference(
            session_id or NewSession(),
            blocks,
            profile=profile,
            config=InferenceConfig(model=model) if model else None,
            conflict_policy=conflict,
            timeout=timeout,
            idempotency_key=key or None,
        )
        if not as_json and follow:
            out.print_note(f"session {handle.session_id}, inference {handle.inference_id}")
        if follow:
            await follow_inference(handle, as_json=as_json)
            if not as_json:
                out.print_note(f"Go on with: {out.program()} chat --session {handle.session_id}")
        elif as_json and handle.inference is not None:
            out.print_json({"inference": out.to_dict(handle.inference), "created": bool(handle.created)})
        elif handle.inference is not None:
            out.print_inference(handle.inference)
            out.print_note(f"See the answer with: {out.program()} wait {handle.inference_id}")

    return command


async def follow_inference(handle: InferenceHandle, *, as_json: bool) -> Inference:
    """Shows an inference up to its end. Raises what it ended with, unless it SUCCEEDED."""
    transcript = out.Transcript()
    try:
        async with handle.events() as events:
            _tell_cuts(events, as_json=as_json)
            async for event in events:
                if as_json:
                    out.print_json(event)
                else:
                    transcript.show(event)
    finally:
        transcript.end()
    result = await handle.result(view="basic", raise_on_failure=False)
    if not as_json:
        out.print_end(result.inference)
    return result.raise_for_state().inference


def wait(inference_id: str, timeout: float | None, *, as_json: bool) -> Command:
    async def command(client: Client) -> None:
        inference = await client.get_inference(inference_id)
        handle = client.inference(inference_id, inference.session_id)
        waiting = out.stderr.status(f"waiting for {inference_id}") if out.stderr.is_terminal and not as_json else None
        if waiting:
            waiting.start()
        try:
            result = await handle.result(timeout, raise_on_failure=False)
        finally:
            if waiting:
                waiting.stop()
        if as_json:
            turn = {"turn": out.to_dict(result.turn)} if result.turn is not None else {}
            out.print_json({"inference": out.to_dict(result.inference)} | turn)
        else:
            out.print_line(result.text)
            out.print_end(result.inference)
        result.raise_for_state()

    return command


def cancel(inference_id: str, session_id: str, reason: str, *, as_json: bool) -> Command:
    async def command(client: Client) -> None:
        if inference_id:
            inference = await client.inference(inference_id, "").cancel(reason)
        else:
            inference = await client.cancel_active(session_id, reason)
        if as_json:
            out.print_json({"inference": out.to_dict(inference)})
        else:
            out.print_inference(inference)

    return command


def watch(
    session_id: str, inference_id: str, start_at: Start, until: Until, log: str, *, as_json: bool, target: str
) -> Command:
    async def command(client: Client) -> None:
        async with client.watch(session_id, inference_id=inference_id, start=start_at, until=until, log=log) as events:
            _tell_cuts(events, as_json=as_json)
            loop, task = asyncio.get_running_loop(), asyncio.current_task()
            restore = _run.interruptible(loop, lambda: task.cancel() if task else None)
            try:
                async for event in events:
                    if as_json:
                        out.print_json(event)
                    else:
                        out.print_line(out.event_line(event))
            except (asyncio.CancelledError, KeyboardInterrupt):
                _tell_cursor(events, session_id, as_json=as_json)
                raise typer.Exit(_failure.INTERRUPTED) from None
            except TurnwireError as error:
                # Here: outside, a task that Ctrl-C has cancelled meanwhile would hide it.
                _failure.fail(target, error, as_json=as_json)
            finally:
                restore()

    return command


def _tell_cuts(events: EventStream, *, as_json: bool) -> None:
    if not as_json:
        events.on_cut = lambda: out.stderr.print("connection lost, trying again ...", style="yellow")


def _tell_cursor(events: EventStream, session_id: str, *, as_json: bool) -> None:
    cursor = events.cursor
    if as_json:
        place = {"after_sequence": str(cursor.after_sequence), "log": cursor.log}
        _failure.print_error("CANCELLED", "interrupted", metadata=place)
        return
    log = f" --log {cursor.log}" if cursor.log else ""
    start = f"--after {cursor.after_sequence}{log}"
    if events.is_snapshot and not cursor.after_sequence:
        start = "--snapshot"  # not all of the one that was shown has come
    out.stderr.print(f"Go on with: {out.program()} watch {session_id} {start}")

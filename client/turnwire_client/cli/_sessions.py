"""What the commands about sessions, turns and inferences do."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing

import typer

from turnwire.v1.inference_pb2 import Inference, InferenceConfig
from turnwire.v1.session_pb2 import NewSession, Session
from turnwire.v1.turn_pb2 import Block, SystemBlock, UserBlock
from turnwire_client._client import Client
from turnwire_client._errors import TurnwireError
from turnwire_client._handle import InferenceHandle, View
from turnwire_client._requests import Conflict
from turnwire_client._watch import EventStream, Start, Until
from turnwire_client.cli import _output as out
from turnwire_client.cli import _run

Command = Callable[[Client], Awaitable[None]]


def list_sessions(limit: int, *, as_json: bool) -> Command:
    async def command(client: Client) -> None:
        found: list[Session] = []
        async with aclosing(client.list_sessions()) as sessions:
            async for session in sessions:
                if len(found) == limit:
                    break
                found.append(session)
        if as_json:
            out.print_json({"sessions": [out.to_dict(session) for session in found]})
            return
        rows = [
            (
                each.session_id,
                each.create_time.ToDatetime().isoformat(" ", "seconds"),
                each.turn_count,
                each.active.inference_id or "-",
                each.display_name,
            )
            for each in found
        ]
        out.print_table(("SESSION", "CREATED (UTC)", "TURNS", "ACTIVE INFERENCE", "NAME"), rows)

    return command


def show_session(session_id: str, *, as_json: bool) -> Command:
    async def command(client: Client) -> None:
        session = await client.get_session(session_id)
        if as_json:
            out.print_json({"session": out.to_dict(session)})
            return
        out.print_facts(
            [
                ("session_id", session.session_id),
                ("name", session.display_name),
                ("profile", session.profile),
                ("created (UTC)", session.create_time.ToDatetime().isoformat(" ", "seconds")),
                ("turns", session.turn_count),
                ("events", session.head_sequence),
                ("log", session.log),
                ("active", session.active.inference_id),
                ("queued", session.queued_count or ""),
                ("labels", ", ".join(f"{key}={value}" for key, value in session.labels.items())),
            ]
        )

    return command


def delete_session(session_id: str, *, force: bool, as_json: bool) -> Command:
    async def command(client: Client) -> None:
        await client.delete_session(session_id, force=force)
        if as_json:
            out.print_json({"session_id": session_id, "deleted": True})
        else:
            out.print_line(f"deleted {session_id}")

    return command


def list_turns(session_id: str, *, as_json: bool) -> Command:
    async def command(client: Client) -> None:
        turns = [turn async for turn in client.list_turns(session_id)]
        if as_json:
            out.print_json({"turns": [out.to_dict(turn) for turn in turns]})
            return
        rows = [
            (
                turn.index,
                turn.parent if turn.HasField("parent") else "-",
                out.turn_state_name(turn.state),
                turn.block_count,
                turn.inference_id,
            )
            for turn in turns
        ]
        out.print_table(("TURN", "PARENT", "STATE", "BLOCKS", "INFERENCE"), rows)

    return command


def show_turn(session_id: str, index: int | None, view: View, *, as_json: bool) -> Command:
    async def command(client: Client) -> None:
        turn = await client.get_turn(session_id, index, view=view)
        if as_json:
            out.print_json({"turn": out.to_dict(turn)})
        else:
            out.print_turn(turn)

    return command


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
        if follow:
            await follow_inference(handle, as_json=as_json)
        elif as_json and handle.inference is not None:
            out.print_json({"inference": out.to_dict(handle.inference), "created": bool(handle.created)})
        elif handle.inference is not None:
            out.print_inference(handle.inference)

    return command


async def follow_inference(handle: InferenceHandle, *, as_json: bool) -> Inference:
    """Shows an inference up to its end. Raises what it ended with, unless it SUCCEEDED."""
    transcript = out.Transcript()
    try:
        async with handle.events() as events:
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
        waiting = out.stderr.status(f"waiting for {inference_id}") if out.stderr.is_terminal else None
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
            loop, task = asyncio.get_running_loop(), asyncio.current_task()
            restore = _run.interruptible(loop, lambda: task.cancel() if task else None)
            try:
                async for event in events:
                    if as_json:
                        out.print_json(event)
                    else:
                        out.print_line(out.event_line(event))
            except (asyncio.CancelledError, KeyboardInterrupt):
                _tell_cursor(events, session_id)
                raise typer.Exit(_run.INTERRUPTED) from None
            except TurnwireError as error:
                _run.fail(target, error)
            finally:
                restore()

    return command


def _tell_cursor(events: EventStream, session_id: str) -> None:
    cursor = events.cursor
    line = f"Go on with: {_run.program()} watch {session_id} --after {cursor.after_sequence} --log {cursor.log}"
    out.stderr.print(line)

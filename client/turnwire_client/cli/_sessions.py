"""What the commands about sessions and turns do."""

from collections.abc import Awaitable, Callable
from contextlib import aclosing

from turnwire.v1.session_pb2 import Session
from turnwire_client._client import Client
from turnwire_client._pages import View
from turnwire_client.cli import _output as out

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
                "active" if each.active.inference_id else "queued" if each.queued_count else "-",
                each.display_name,
            )
            for each in found
        ]
        out.print_table(("SESSION", "CREATED (UTC)", "TURNS", "STATE", "NAME"), rows)

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
                ("step mode", "on" if session.step_mode else ""),
                ("origin", _origin(session)),
                ("labels", ", ".join(f"{key}={value}" for key, value in session.labels.items())),
            ]
        )

    return command


def fork_session(session_id: str, index: int | None, name: str, *, as_json: bool) -> Command:
    async def command(client: Client) -> None:
        fork = await client.fork_session(session_id, index=index, display_name=name)
        if as_json:
            out.print_json({"session": out.to_dict(fork)})
        else:
            out.print_line(f"session {fork.session_id} goes on from {_origin(fork)}")

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


def _origin(session: Session) -> str:
    return f"turn {session.origin.index} of {session.origin.session_id}" if session.HasField("origin") else ""

"""What answer and the commands about steps do, and snapshots."""

from collections.abc import Mapping
from typing import Literal

from turnwire.v1.tool_pb2 import ToolApproval, ToolDenial, ToolError, ToolOutcome
from turnwire.v1.turn_pb2 import Turn
from turnwire_client._client import Client
from turnwire_client._debug import Phase, Release
from turnwire_client.cli import _output as out
from turnwire_client.cli._sessions import Command


def answer(
    inference_id: str,
    approvals: Mapping[str, str],
    denials: Mapping[str, str],
    results: Mapping[str, str],
    errors: Mapping[str, str],
    *,
    as_json: bool,
) -> Command:
    outcomes = [
        *(ToolOutcome(tool_call=call, approved=ToolApproval(args=args)) for call, args in approvals.items()),
        *(ToolOutcome(tool_call=call, denied=ToolDenial(reason=reason)) for call, reason in denials.items()),
        *(ToolOutcome(tool_call=call, result=result) for call, result in results.items()),
        *(ToolOutcome(tool_call=call, error=ToolError(message=text, code="failed")) for call, text in errors.items()),
    ]

    async def command(client: Client) -> None:
        response = await client.inference(inference_id, "").submit_tool_results(outcomes)
        pending = list(response.pending_tool_calls)
        if as_json:
            out.print_json({"inference": out.to_dict(response.inference), "pending_tool_calls": pending})
            return
        out.print_inference(response.inference)
        if pending:
            out.print_facts([("pending", ", ".join(pending))])
        out.print_note(f"See what comes of it with: {out.program()} wait {inference_id}")

    return command


def set_step_mode(
    session_id: str,
    enabled: bool,
    deadline: float | None,
    deadline_action: Literal["continue", "abort"],
    *,
    as_json: bool,
) -> Command:
    async def command(client: Client) -> None:
        await client.set_step_mode(session_id, enabled, deadline=deadline, deadline_action=deadline_action)
        if as_json:
            out.print_json({"session_id": session_id, "step_mode": enabled})
        else:
            out.print_line(f"step mode is {'on' if enabled else 'off'} in {session_id}")

    return command


def list_pauses(session_id: str, *, as_json: bool) -> Command:
    async def command(client: Client) -> None:
        pauses = [pause async for pause in client.list_pauses(session_id)]
        if as_json:
            out.print_json({"pauses": [out.to_dict(pause) for pause in pauses]})
            return
        rows = [
            (
                each.id,
                each.deadline_time.ToDatetime().isoformat(" ", "seconds"),
                out.action_name(each.deadline_action),
                each.phase,
                each.summary,
            )
            for each in pauses
        ]
        out.print_table(("PAUSE", "UNTIL (UTC)", "THEN", "PHASE", "SUMMARY"), rows)

    return command


def release_pause(pause: str, action: Release, *, as_json: bool) -> Command:
    async def command(client: Client) -> None:
        inference = await client.release_pause(pause, action)
        if as_json:
            out.print_json({"inference": out.to_dict(inference)})
            return
        out.print_inference(inference)
        out.print_note(f"See what comes of it with: {out.program()} wait {inference.inference_id}")

    return command


def list_turn_snapshots(inference_id: str, phase: Phase | None, *, as_json: bool) -> Command:
    async def command(client: Client) -> None:
        snapshots = [snapshot async for snapshot in client.list_turn_snapshots(inference_id, phase=phase)]
        if as_json:
            out.print_json({"snapshots": [out.to_dict(snapshot) for snapshot in snapshots]})
            return
        rows = [
            (
                each.iteration,
                out.phase_name(each.phase),
                each.create_time.ToDatetime().isoformat(" ", "milliseconds"),
                each.turn.block_count,
                _newest(each.turn),
            )
            for each in snapshots
        ]
        out.print_table(("CALL", "PHASE", "TAKEN (UTC)", "BLOCKS", "NEWEST BLOCK"), rows)

    return command


def _newest(turn: Turn) -> str:
    return f"{turn.blocks[-1].WhichOneof('kind')} {out.block_text(turn.blocks[-1])}" if turn.blocks else "-"

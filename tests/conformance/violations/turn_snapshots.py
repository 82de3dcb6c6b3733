"""Violations of what the contract says of the snapshots of turns."""

from typing import Any

from turnwire.v1 import debug_service_pb2 as pb
from violations.edits import clears, drops, maps
from violations.exchange import Exchange
from violations.kinds import changes, sends, takes
from violations.violation import violation

LIST = "DebugService.ListTurnSnapshots"
PHASE = "SnapshotPhase.SNAPSHOT_PHASE_"


def drops_phase(name: str) -> Any:
    """Return a plant that has no snapshots of a phase."""
    number = pb.SnapshotPhase.Value(f"SNAPSHOT_PHASE_{name}")
    return changes("ListTurnSnapshots", drops("snapshots", lambda snapshot: snapshot.phase == number))


def counts_what_is_there(_: Any, response: Any) -> None:
    """Count the blocks that are shown, and show one less of the large ones."""
    for snapshot in response.snapshots:
        del snapshot.turn.blocks[2:]
        snapshot.turn.block_count = len(snapshot.turn.blocks)


async def as_it_is_now(exchange: Exchange) -> Any:
    """Show the turn with all of its blocks in every snapshot."""
    response = await exchange.forward()
    for snapshot in response.snapshots:
        whole = await exchange.ask("GetTurn", inference_id=snapshot.turn.inference_id, view=2)
        snapshot.turn.CopyFrom(whole.turn)
    return response


VIOLATIONS = [
    violation(
        "nothing-is-recorded",
        [
            (LIST, "They are taken if Overrides.record_snapshots asks for it"),
            ("Overrides.record_snapshots", "Whether the turn is recorded between the phases"),
        ],
        sends("StartInference", clears("overrides.record_snapshots")),
    ),
    violation(
        "phases-do-not-choose",
        ("ListTurnSnapshotsRequest.phase", "Only those of this phase."),
        sends("ListTurnSnapshots", clears("phase")),
    ),
    violation(
        "only-ends-are-listed-when-no-phase-is-named",
        [("ListTurnSnapshotsRequest.phase", "UNSPECIFIED: all."), (f"{PHASE}UNSPECIFIED", "All phases.")],
        sends("ListTurnSnapshots", maps("phase", lambda phase: phase or pb.SNAPSHOT_PHASE_FINAL)),
    ),
    violation(
        "snapshots-count-from-0",
        ("TurnSnapshot.iteration", "Counts the engine calls of the inference from 1."),
        changes("ListTurnSnapshots", maps("snapshots.iteration", lambda count: count - 1)),
    ),
    violation(
        "snapshots-show-the-turn-as-it-is-now",
        ("TurnSnapshot.turn", "The turn in the view DELTA, with the blocks that it had then"),
        takes("ListTurnSnapshots", as_it_is_now),
    ),
    violation(
        "snapshots-lack-pre-inference", (f"{PHASE}PRE_INFERENCE", "Before an engine"), drops_phase("PRE_INFERENCE")
    ),
    violation(
        "snapshots-lack-post-inference",
        (f"{PHASE}POST_INFERENCE", "After an engine call."),
        drops_phase("POST_INFERENCE"),
    ),
    violation(
        "snapshots-lack-post-tools", (f"{PHASE}POST_TOOLS", "After a batch of tool calls."), drops_phase("POST_TOOLS")
    ),
    violation("snapshots-lack-the-end", (f"{PHASE}FINAL", "At the end, however it came."), drops_phase("FINAL")),
    violation(
        "blocks-that-are-left-out-are-not-counted",
        ("TurnSnapshot.turn", "Blocks that would take the response beyond its size are left out"),
        changes("ListTurnSnapshots", counts_what_is_there),
    ),
]

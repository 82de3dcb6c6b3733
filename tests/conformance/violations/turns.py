"""Violations of what the contract says of turns: how they are built, and how they are read."""

from typing import Any

from turnwire.v1 import inference_pb2, turn_pb2
from turnwire.v1.inference_pb2 import Inference
from turnwire.v1.session_pb2 import Session
from turnwire.v1.turn_pb2 import TURN_STATE_CLOSED, TURN_STATE_OPEN, Turn
from violations.edits import alters, clears, cuts, maps, reverses, sets, tolerates
from violations.kinds import accepts, changes, refuses, sends
from violations.violation import violation

TURN_OF_START = "StartInferenceRequest.parent"
SHOWN = ("GetTurn", "ListTurns")

BASIC, DELTA, FULL = turn_pb2.TURN_VIEW_BASIC, turn_pb2.TURN_VIEW_DELTA, turn_pb2.TURN_VIEW_FULL


def is_open(turn: Any) -> bool:
    """Whether a turn may still grow."""
    return bool(turn.state == TURN_STATE_OPEN)


def counts_what_is_shown(turn: Any) -> None:
    """Count the blocks that are shown."""
    turn.block_count = len(turn.blocks)


def names_blocks_by_turn(turn: Any) -> None:
    """Give each turn its own names of blocks."""
    for block in turn.blocks:
        block.id = f"{turn.index}-{block.id}"


def closed_now(turn: Any) -> None:
    """Close a turn again, whenever it is read."""
    if not is_open(turn):
        turn.close_time.GetCurrentTime()


def carries_what_is_for_one_turn(turn: Any) -> None:
    """Carry on what is meant for one turn only."""
    turn.data["geppetto.tool_config@v1"] = "{}"


def views(view: int, other: int) -> Any:
    """Return a plant that shows another view than that which is asked for."""
    return sends(SHOWN, sets("view", other), lambda request: request.view == view)


VIOLATIONS = [
    violation(
        "newest-turn-is-not-listed",
        ("Turn", "Every inference that leaves QUEUED has exactly one"),
        changes("ListTurns", cuts("turns", -1)),
    ),
    violation(
        "closed-turns-change",
        ("Turn", "A turn is OPEN while its inference lives and MUST NOT change"),
        alters(Turn, closed_now),
    ),
    violation(
        "turns-stay-open",
        ("TurnState.TURN_STATE_CLOSED", "The inference has ended"),
        alters(Turn, sets("state", TURN_STATE_OPEN)),
    ),
    violation(
        "turns-are-always-closed",
        ("TurnState.TURN_STATE_OPEN", "The inference lives"),
        alters(Turn, sets("state", TURN_STATE_CLOSED)),
    ),
    violation(
        "closed-turns-have-no-time", ("Turn.close_time", "When the turn was"), alters(Turn, clears("close_time"))
    ),
    violation(
        "open-turns-have-a-time-of-closing",
        ("Turn.close_time", "Absent while it is OPEN."),
        alters(Turn, lambda turn: turn.close_time.GetCurrentTime(), is_open),
    ),
    violation(
        "blocks-are-turned-round",
        [("Turn", "It is built from its parent"), ("Turn.blocks", "The blocks, oldest first")],
        alters(Turn, reverses("blocks")),
    ),
    violation(
        "turns-are-counted-from-1",
        ("Turn.index", "The position of the turn in its session"),
        alters(Turn, maps("index", lambda index: index + 1)),
    ),
    violation(
        "turns-name-another-parent",
        ("Turn.parent", "The index of the turn that this one was built on."),
        alters(Turn, maps("parent", lambda index: index + 1), lambda turn: turn.HasField("parent")),
    ),
    violation(
        "first-turns-have-a-parent",
        ("Turn.parent", "Absent for a turn that was built on nothing."),
        alters(Turn, maps("parent", lambda index: index)),
    ),
    violation(
        "turns-have-short-ids",
        ("Turn.id", "The identity of the turn, a UUIDv7."),
        alters(Turn, maps("id", lambda name: name[:8])),
    ),
    violation(
        "blocks-are-counted-as-they-are-shown",
        ("Turn.block_count", "How many blocks the whole turn has"),
        alters(Turn, counts_what_is_shown),
    ),
    violation(
        "no-block-is-inherited",
        ("Turn.inherited_block_count", "How many of its blocks are the parent's."),
        alters(Turn, sets("inherited_block_count", 0)),
    ),
    violation(
        "delta-begins-with-the-ancestors",
        [
            ("Turn.inherited_block_count", "The view DELTA begins after them."),
            ("TurnView.TURN_VIEW_DELTA", "Only what this turn has that its parent has not."),
        ],
        views(DELTA, FULL),
    ),
    violation(
        "given-blocks-are-those-of-the-parent",
        ("Turn.given_block_count", "How many of its blocks it was given"),
        alters(Turn, lambda turn: setattr(turn, "given_block_count", turn.inherited_block_count)),
    ),
    violation(
        "all-blocks-are-given",
        ("Turn.given_block_count", "The inference produced those after them."),
        alters(Turn, lambda turn: setattr(turn, "given_block_count", turn.block_count)),
    ),
    violation(
        "turns-have-no-metadata",
        [
            ("Turn.metadata", "Facts about the turn; each value is one JSON text."),
            ("StartInferenceRequest.metadata", "Metadata of the turn; see Turn.metadata."),
        ],
        alters(Turn, clears("metadata")),
    ),
    violation(
        "data-is-for-one-turn",
        ("StartInferenceRequest.data", "Data of the turn, laid over what the parent carries"),
        alters(Turn, clears("data")),
    ),
    violation(
        "what-is-for-one-turn-is-carried-on",
        ("Turn.data", "It is carried from parent to child"),
        alters(Turn, carries_what_is_for_one_turn, lambda turn: turn.index > 0),
    ),
    violation(
        "data-has-no-limit",
        ("StartInferenceRequest.data", "With what the parent carries, they are at most"),
        tolerates("StartInference", lambda request: bool(request.data)),
    ),
    violation(
        "inferences-name-another-turn",
        ("Inference.turn_index", "The index of its turn."),
        alters(Inference, maps("turn_index", lambda index: index + 1), lambda now: now.HasField("turn_index")),
    ),
    violation(
        "queued-inferences-have-a-turn",
        ("Inference.turn_index", "Absent until the inference first leaves QUEUED."),
        alters(Inference, sets("turn_index", 0), lambda now: now.state == inference_pb2.INFERENCE_STATE_QUEUED),
    ),
    violation(
        "turns-need-input",
        ("StartInferenceRequest.input", "None: the model continues from the parent"),
        refuses("StartInference", "EMPTY_TURN", when=lambda request: not request.input),
    ),
    violation(
        "parents-are-not-looked-at",
        (TURN_OF_START, "The index of the turn to build on"),
        sends("StartInference", clears("parent")),
    ),
    violation(
        "queued-turns-are-built-on-the-first-one",
        (TURN_OF_START, "Not set: the turn before"),
        sends("StartInference", sets("parent", 0), lambda request: request.conflict_policy == 2),
    ),
    violation(
        "parents-may-be-open",
        (TURN_OF_START, "The turn MUST be CLOSED."),
        accepts("StartInference", "TURN_NOT_CLOSED"),
    ),
    violation(
        "there-is-a-turn-before-it-is-opened",
        ("ErrorReason.ERROR_REASON_TURN_NOT_OPENED", "It has one once it has run"),
        accepts("GetTurn", "TURN_NOT_OPENED"),
    ),
    violation(
        "open-turns-show-nothing",
        ("SessionService.GetTurn", "An OPEN turn shows what is committed so far"),
        alters(Turn, clears("blocks"), is_open),
    ),
    violation(
        "blocks-have-other-ids-in-each-turn",
        ("Block.id", "A child turn shows its parent's blocks under the same ids."),
        alters(Turn, names_blocks_by_turn),
    ),
    # views
    violation("basic-view-shows-blocks", ("TurnView.TURN_VIEW_BASIC", "The turn without blocks."), views(BASIC, FULL)),
    violation("full-view-is-the-delta", ("TurnView.TURN_VIEW_FULL", "Every block from the"), views(FULL, DELTA)),
    violation(
        "turns-are-shown-as-deltas-when-nothing-is-said",
        ("GetTurnRequest.view", "UNSPECIFIED means FULL."),
        sends("GetTurn", sets("view", DELTA), lambda request: not request.view),
    ),
    violation(
        "turns-are-listed-with-blocks-when-nothing-is-said",
        ("ListTurnsRequest.view", "UNSPECIFIED means BASIC."),
        sends("ListTurns", sets("view", DELTA), lambda request: not request.view),
    ),
    violation(
        "turns-are-always-listed-without-blocks",
        ("ListTurnsRequest.view", "How much of each turn."),
        sends("ListTurns", sets("view", BASIC)),
    ),
    violation(
        "newest-turn-is-never-first",
        ("ListTurnsRequest.newest_first", "Whether the newest turn comes first."),
        sends("ListTurns", sets("newest_first", value=False)),
    ),
    violation(
        "newest-turn-is-always-first",
        ("ListTurnsRequest.newest_first", "Not set: the oldest does."),
        sends("ListTurns", sets("newest_first", value=True)),
    ),
    # which turn
    violation(
        "turns-are-not-found-by-index",
        ("GetTurnRequest.at", "The turn of a session at an index."),
        refuses("GetTurn", "SESSION_NOT_FOUND", when=lambda request: request.HasField("at")),
    ),
    violation(
        "every-index-is-that-of-the-newest-turn",
        ("TurnAt.index", "The index of the turn."),
        sends("GetTurn", clears("at.index")),
    ),
    violation(
        "first-turn-is-shown-for-the-newest",
        ("TurnAt.index", "Not set: the newest turn."),
        sends("GetTurn", sets("at.index", 0, lambda at: not at.HasField("index"))),
    ),
    violation(
        "turns-are-counted-by-their-newest-index",
        [
            ("Session.turn_count", "The newest one has index turn_count - 1."),
            ("Session.turn_count", "How many turns the session has."),
        ],
        alters(Session, maps("turn_count", lambda count: count - 1), lambda session: session.turn_count > 0),
    ),
]

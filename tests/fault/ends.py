"""How inferences end: what has to hold of each that did, in its log, in its turn, and in what is told of it."""

from collections.abc import Sequence
from itertools import pairwise

from fault.checks import CANCELLED, FAILED, SUCCEEDED, TERMINAL
from fault.ledger import Asked
from fault.plays import Part
from turnwire.v1 import error_reason_pb2 as reasons
from turnwire.v1 import inference_pb2, turn_pb2
from turnwire.v1.event_pb2 import Event
from turnwire.v1.inference_pb2 import Inference
from turnwire.v1.turn_pb2 import Turn
from turnwire_conformance.promises import holding

OUTCOMES = {SUCCEEDED: "succeeded", FAILED: "failed", CANCELLED: "cancelled"}


def check_outcome(asked: Asked, ends: int, *, is_cancel_kept: bool, is_excused: bool = False) -> None:
    """Terminal, Durable: an inference ended as its play does, unless something came in between.

    `ends` counts the servers that went away since it was asked for. `is_cancel_kept`: its cancel was acknowledged by a
    server that went away before it ended, so that only a cancel or its deadline can have ended it. `is_excused`: its
    provider was in trouble.
    """
    now, play = asked.seen, asked.play
    told = f"{play.kind} {now.inference_id} of session {now.session_id}"
    is_due = now.state == CANCELLED or now.error.reason == reasons.ERROR_REASON_DEADLINE_EXCEEDED
    assert is_due or not is_cancel_kept, f"Durable: {told} ended with {now}, and its cancel was acknowledged before"
    if now.state == CANCELLED:
        assert asked.cancel_count, f"Terminal: {told} is CANCELLED, and nobody asked for it"
        assert now.finish_class == inference_pb2.FINISH_CLASS_INTERRUPTED, f"Terminal: {told} is cancelled: {now}"
    elif now.state == FAILED and now.error.reason == reasons.ERROR_REASON_ATTEMPT_LOST:
        assert ends >= max(now.attempts_max, 1), f"Terminal: {told} lost its attempts, with {ends} servers"
    elif not (is_excused and now.state == FAILED and now.error.reason in play.excused):
        found = (now.state, now.error.reason, now.finish_class if now.state == SUCCEEDED else play.finish_class)
        due = (play.state, play.reason, play.finish_class)
        assert found == due, f"Terminal: {told} ended with {found}, not {due}: {now}"
        assert not play.is_endless, f"Terminal: {told} ended by itself: {now}"


def check_end_told(now: Inference, story: Sequence[Event]) -> None:
    """Terminal: log and inference tell of the same end."""
    finished = story[-1].inference_finished
    assert now.state in TERMINAL, f"Terminal: {now.inference_id} ended at {story[-1].sequence} of the log, and is {now}"
    assert OUTCOMES[now.state] == finished.WhichOneof("outcome"), f"Terminal: {now} ended in the log with {finished}"
    assert now.error == finished.failed.error, f"Terminal: {now} ended in the log with {finished}"
    assert now.usage == finished.usage, f"Terminal: {now} ended in the log with {finished}"
    ends = (now.first_sequence, now.last_sequence)
    assert ends == (story[0].sequence, story[-1].sequence), f"Gapless: {now} is in the log up to {story[-1].sequence}"


def check_attempts(now: Inference, story: Sequence[Event], stops: int) -> None:
    """Terminal: attempts are counted, those aside that the servers handed back which were told to stop."""
    attempts = [event.attempt for event in story if event.HasField("inference_started")]
    steps = [after - before for before, after in pairwise([0, *attempts])]
    assert set(steps) <= {0, 1}, f"Terminal: the attempts of {now.inference_id} were {attempts}"
    again = len(attempts) - len(set(attempts))
    assert again <= stops, f"Terminal: the attempts of {now.inference_id} were {attempts}, with {stops} stops"
    last = max(attempts, default=0)
    assert last < now.attempts_max, f"Terminal: {now.inference_id} had attempt {last} of {now.attempts_max}"


def check_turn_told(turn: Turn, story: Sequence[Event]) -> None:
    """Durable: the turn has what the log tells, whole or in part, and is closed."""
    assert turn.state == turn_pb2.TURN_STATE_CLOSED, f"Terminal: turn {turn.index} is not closed"
    said: dict[str, tuple[str, bool]] = {}
    for event in holding(story):
        name = event.WhichOneof("payload") or ""
        text, is_whole = said.get(event.entity, ("", False))
        if name in {"llm_delta", "llm_thinking_delta", "tool_delta"}:
            said[event.entity] = (text + getattr(event, name).delta, is_whole)
        elif name in {"llm_final", "llm_thinking_final", "tool_call"}:
            said[event.entity] = (text, True)
        elif name == "tool_start":
            said[event.entity] = ("", False)
    kept = {
        block.tool_call.id if block.HasField("tool_call") else block.id: (
            _text_of(block).text,
            block.status == turn_pb2.BLOCK_STATUS_COMPLETE,
        )
        for block in produced(turn)
    }
    assert kept == said, f"Durable: turn {turn.index} has {kept}, and the log told {said}"


def check_output(parts: Sequence[Part], state: int, turn: Turn) -> None:
    """What an inference produced is what its play says, once; a part of it from the beginning if it did not succeed."""
    found = [_text_of(block) for block in produced(turn)]
    if state == SUCCEEDED:
        assert found == list(parts), f"Unique: turn {turn.index} has {found}, not {parts}"
    for number, (part, due) in enumerate(zip(found, parts, strict=False)):
        is_whole = part.text == due.text if number < len(found) - 1 else due.text.startswith(part.text)
        is_due = is_whole and part.kind == due.kind
        assert is_due, f"Unique: turn {turn.index} has {found}, no beginning of {parts}"
    assert len(found) <= len(parts), f"Unique: turn {turn.index} has {found}, more than {parts}"


def produced(turn: Turn) -> Sequence[turn_pb2.Block]:
    """Return the blocks of a turn, in the view DELTA, that its inference produced."""
    return turn.blocks[turn.given_block_count - turn.inherited_block_count :]


def _text_of(block: turn_pb2.Block) -> Part:
    kind = block.WhichOneof("kind") or ""
    return Part(kind, block.tool_call.args if kind == "tool_call" else getattr(block, kind).text)

"""What an engine is shown of a turn. Pure; the stored history is not changed."""

from turnwire_server.domain.tool import ToolCall, ToolError, ToolUse
from turnwire_server.domain.turn import Block, BlockStatus

# Such a call may have been executed: by a client that was about to answer, or in an attempt that is gone.
UNANSWERED = ToolError("the call was not answered; whether it was executed is not known", "unknown_outcome")


def engine_view(blocks: tuple[Block, ...]) -> tuple[Block, ...]:
    """Return what an engine is shown: an error for each tool call that nobody answered, and no answer without a call.

    Names of calls are those of one inference and may come again in the next, so an answer belongs to the nearest call
    of its name before it.
    """
    answers = _answers(blocks)
    answering = {*answers.values()}
    shown: list[Block] = []
    dangling: list[ToolCall] = []
    for position, block in enumerate(blocks):
        if isinstance(block.kind, ToolUse) and position not in answering:
            continue
        if isinstance(block.kind, ToolCall) and block.status is BlockStatus.INCOMPLETE:
            continue  # its arguments were cut, so it was never a call
        if dangling and not isinstance(block.kind, ToolCall):
            shown.extend(_unanswered(dangling))
            dangling = []
        shown.append(block)
        if isinstance(block.kind, ToolCall) and position not in answers:
            dangling.append(block.kind)
    return (*shown, *_unanswered(dangling))


def _answers(blocks: tuple[Block, ...]) -> dict[int, int]:
    """Return the position of the answer for the position of each call that has one."""
    waiting: dict[str, int] = {}
    answers: dict[int, int] = {}
    for position, block in enumerate(blocks):
        if isinstance(block.kind, ToolCall) and block.status is not BlockStatus.INCOMPLETE:
            waiting[block.kind.id] = position
        elif isinstance(block.kind, ToolUse) and block.kind.tool_call in waiting:
            answers[waiting.pop(block.kind.tool_call)] = position
    return answers


def _unanswered(calls: list[ToolCall]) -> list[Block]:
    return [Block("", ToolUse(call.id, UNANSWERED), "tool") for call in calls]

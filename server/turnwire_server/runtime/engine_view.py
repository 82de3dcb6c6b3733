"""What an engine is shown of a turn. Pure; the stored history is not changed."""

from turnwire_server.domain.tool import ToolCall, ToolError, ToolUse
from turnwire_server.domain.turn import Block, BlockStatus, System


def engine_view(blocks: tuple[Block, ...], system_prompt: str) -> tuple[Block, ...]:
    """Return what an engine is shown: the profile's instruction first, and an error for each unanswered tool call."""
    shown: list[Block] = []
    if system_prompt and not any(isinstance(b.kind, System) and b.kind.text == system_prompt for b in blocks):
        shown.append(Block("", System(system_prompt), "system"))
    answered = {block.kind.tool_call for block in blocks if isinstance(block.kind, ToolUse)}
    called: set[str] = set()
    dangling: list[ToolCall] = []
    for block in blocks:
        if isinstance(block.kind, ToolUse) and block.kind.tool_call not in called:
            continue
        if isinstance(block.kind, ToolCall) and block.status is BlockStatus.INCOMPLETE:
            continue  # its arguments were cut, so it was never a call
        if dangling and not isinstance(block.kind, ToolCall):
            shown.extend(_unanswered(dangling))
            dangling = []
        shown.append(block)
        if isinstance(block.kind, ToolCall):
            called.add(block.kind.id)
            if block.kind.id not in answered:
                dangling.append(block.kind)
    return (*shown, *_unanswered(dangling))


def _unanswered(calls: list[ToolCall]) -> list[Block]:
    error = ToolError("the tool was not executed", "not_executed")
    return [Block("", ToolUse(call.id, error), "tool") for call in calls]

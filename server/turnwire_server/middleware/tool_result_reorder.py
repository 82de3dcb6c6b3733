"""The middleware tool_result_reorder: each answer directly behind the tool calls that it answers.

Results of clients may be in a turn in any order and anywhere behind their calls, and some providers refuse that. The
answers to a run of neighbouring calls are put behind the run, in the order of the calls. Everything else keeps its
order, and no block is lost.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import replace

from pydantic import BaseModel, ConfigDict

from turnwire_server.domain.tool import ToolCall, ToolUse
from turnwire_server.domain.turn import Block
from turnwire_server.engines.base import Emit, EngineCall, EngineResult
from turnwire_server.middleware.base import Proceed, Scope
from turnwire_server.tools.base import ServerTool


class ToolResultReorderSettings(BaseModel):
    """The settings of tool_result_reorder: there are none."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ToolResultReorder:
    """See Middleware."""

    name = "tool_result_reorder"
    tools: Sequence[ServerTool] = ()

    async def call(self, call: EngineCall, emit: Emit, scope: Scope, proceed: Proceed) -> EngineResult:
        """Show the engine the blocks in order."""
        return await proceed(replace(call, blocks=reorder(call.blocks)), emit)

    async def aclose(self) -> None:
        """There is nothing to give back."""


def reorder(blocks: Sequence[Block]) -> tuple[Block, ...]:
    """Return the blocks with the answers of each run of tool calls behind the run. Pure."""
    answers = _answers(blocks)
    moved = set(answers.values())
    shown: list[Block] = []
    due: list[Block] = []  # the answers to the run that is being read
    for at, block in enumerate(blocks):
        if not isinstance(block.kind, ToolCall):
            shown += due
            due = []
        if at not in moved:
            shown.append(block)
        if at in answers:
            due.append(blocks[answers[at]])
    return (*shown, *due)


def _answers(blocks: Sequence[Block]) -> dict[int, int]:
    """Return where the answer to each call is, by position, because ids may repeat.

    An answer belongs to the nearest run before it that has an unanswered call of its id, and there to the first one.
    """
    answers: dict[int, int] = {}
    open_calls: dict[str, list[tuple[int, deque[int]]]] = {}  # by id: each run that has any, and their positions
    run = 0
    for at, block in enumerate(blocks):
        match block.kind:
            case ToolCall(id=call):
                runs = open_calls.setdefault(call, [])
                if not runs or runs[-1][0] != run:
                    runs.append((run, deque()))
                runs[-1][1].append(at)
                continue
            case ToolUse(tool_call=call) if asked := open_calls.get(call):
                _, calls = asked[-1]
                answers[calls.popleft()] = at
                if not calls:
                    asked.pop()
            case _:
                pass
        run += 1
    return answers

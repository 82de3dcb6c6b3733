"""What becomes of the tool calls that a model made: who executes each, who approves it, which are refused. Pure."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from turnwire_server.domain.errors import ToolsUnavailableError
from turnwire_server.domain.inference import InferenceConfig
from turnwire_server.domain.profile import ToolPolicy
from turnwire_server.domain.tool import Tool, ToolCall, ToolPlacement
from turnwire_server.domain.turn import Block, User
from turnwire_server.runtime.checkpoint import CallState, PlannedCall
from turnwire_server.tools.base import ToolDefinition

# Marks the block of a turn that tells the model that its calls could not be read.
BROKEN_CALLS_KEY = "turnwire.tool_call_repair@v1"

# Choices that name no tool.
_CHOICES = frozenset({"", "auto", "none", "required"})


@dataclass(frozen=True, slots=True)
class Offer:
    """The tools of one engine call: what the model may be offered, and which of them it may be told to use."""

    tools: Mapping[str, Tool] = field(default_factory=dict[str, Tool])
    idempotent: frozenset[str] = frozenset()

    def narrowed(self, names: Collection[str]) -> "Offer":
        """Return the offer without the tools that are not among `names`."""
        return replace(self, tools={name: tool for name, tool in self.tools.items() if name in names})


def plan_offer(own: Mapping[str, ToolDefinition], asked: Sequence[Tool], policy: ToolPolicy) -> Offer:
    """Return what may be offered: the server's `own` tools, and those that a request brings or wants approved.

    Errors: ToolsUnavailableError for a tool of the server that a request names and that is not there.
    """
    tools = {
        name: replace(
            definition.tool,
            placement=ToolPlacement.SERVER,
            approval_required=definition.tool.approval_required or name in policy.approve,
        )
        for name, definition in own.items()
    }
    for tool in asked:
        if tool.placement is not ToolPlacement.SERVER:
            tools[tool.name] = replace(tool, placement=ToolPlacement.CLIENT)
        elif (found := tools.get(tool.name)) is None:
            raise ToolsUnavailableError(f"the profile has no tool {tool.name}", source=tool.name)
        else:
            tools[tool.name] = replace(found, approval_required=found.approval_required or tool.approval_required)
    offer = Offer(tools, frozenset(name for name, definition in own.items() if definition.is_idempotent))
    return offer if policy.allow is None else offer.narrowed(policy.allow)


def config_of_call(config: InferenceConfig, iteration: int) -> InferenceConfig:
    """Return the configuration of an engine call: a tool has to be used only once, so that the model can answer."""
    is_forced = config.tool_choice not in {"", "auto", "none"}
    return replace(config, tool_choice="auto") if is_forced and iteration > 1 else config


def broken_calls_block() -> Block:
    """Return what the model is told when none of its calls has arguments that can be read."""
    text = (
        "The arguments of the tool call in your last message are not one JSON object, so it was not executed.\n"
        "Call the tool again, with arguments that are."
    )
    return Block("", User(text), "user", metadata={BROKEN_CALLS_KEY: "true"})


def plan_calls(
    calls: Sequence[ToolCall], offered: Offer, known: Collection[str], choice: str
) -> tuple[PlannedCall, ...]:
    """Return what becomes of the calls of one engine call that was offered these tools; `known` are all there are."""
    return tuple(_plan(call, offered, known, choice) for call in calls)


def _plan(call: ToolCall, offered: Offer, known: Collection[str], choice: str) -> PlannedCall:
    tool = offered.tools.get(call.name)
    if tool is None or choice == "none" or (choice not in _CHOICES and choice != call.name):
        code = "not_allowed" if call.name in known or tool else "unknown_tool"
        return PlannedCall(call.id, call.name, CallState.REFUSED, code=code)
    by = CallState.SERVER if tool.placement is ToolPlacement.SERVER else CallState.CLIENT
    state = CallState.APPROVAL if tool.approval_required else by
    is_idempotent = by is CallState.SERVER and call.name in offered.idempotent
    return PlannedCall(call.id, call.name, state, by, is_idempotent=is_idempotent)

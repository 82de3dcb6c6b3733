"""The middleware agent_mode: modes that the model works in, each with a prompt and the tools that it may use.

The mode is in the turn's data (`geppetto.agent_mode@v1`, a JSON string), so the session keeps it; beside it is what
its mode allows (`geppetto.agent_mode_allowed_tools@v1`, a JSON array, absent for all tools). An application may set the
mode there as well. The model changes it by a section of its text (see sections.py):

    <turnwire:agent_mode mode="review">the code is written</turnwire:agent_mode>

The text inside is the reason. The section stays in the text: what was told is what is stored. Of several sections in
one engine call the last one that is closed counts. The change takes effect from the next engine call on, and only if
this one ends well. Since the model decides, modes guide it; what it must never do is not to be offered in any mode.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from turnwire_server.domain.event import AgentMode as AgentModeChanged
from turnwire_server.domain.event import Log
from turnwire_server.domain.inference import InferenceConfig
from turnwire_server.domain.tool import Tool
from turnwire_server.engines.base import Emit, EngineCall, EngineChunk, EngineResult, PartKind
from turnwire_server.middleware.base import Proceed, Scope
from turnwire_server.middleware.instruction import put_behind_system
from turnwire_server.middleware.sections import CallReader, Section, SectionState
from turnwire_server.tools.base import ServerTool

MODE_KEY = "geppetto.agent_mode@v1"
ALLOWED_TOOLS_KEY = "geppetto.agent_mode_allowed_tools@v1"

# What is told of a reason, and of the name of a mode that is not known, in characters.
_REASON_LENGTH_MAX = 4096
_NAME_LENGTH_MAX = 64

_SECTION = "agent_mode"

ModeName = Annotated[str, Field(pattern=rf"^[A-Za-z0-9_.-]{{1,{_NAME_LENGTH_MAX}}}$")]


class Mode(BaseModel):
    """One mode. Without `allowed_tools` all tools may be used in it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: str
    allowed_tools: tuple[str, ...] | None = None


class AgentModeSettings(BaseModel):
    """The settings of agent_mode. A session begins in the mode `default`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    default: str
    modes: dict[ModeName, Mode] = Field(min_length=1)

    @model_validator(mode="after")
    def _knows_default(self) -> "AgentModeSettings":
        if self.default not in self.modes:
            msg = f"the default {self.default!r} is none of the modes {', '.join(sorted(self.modes))}"
            raise ValueError(msg)
        return self


class AgentMode:
    """See Middleware."""

    name = "agent_mode"
    tools: Sequence[ServerTool] = ()

    def __init__(self, settings: AgentModeSettings) -> None:
        self._default = settings.default
        self._modes = settings.modes

    async def call(self, call: EngineCall, emit: Emit, scope: Scope, proceed: Proceed) -> EngineResult:
        """Make the call in the present mode; change the mode if the model says so."""
        mode = await self._present(call, scope)
        self._record_tools(scope, mode)
        reader = CallReader(_SECTION, {PartKind.TEXT})
        newest: Section | None = None

        async def hear(chunk: EngineChunk) -> None:
            nonlocal newest
            await emit(chunk)
            for section in reader.take(chunk):
                if section.state is SectionState.CLOSED:
                    newest = section

        result = await proceed(self._in_mode(call, mode), hear)
        if newest:
            await self._change(scope, mode, newest)
        return result

    async def aclose(self) -> None:
        """There is nothing to give back."""

    async def _present(self, call: EngineCall, scope: Scope) -> str:
        text = scope.data.get(MODE_KEY)
        if text is None:
            return self._default
        stored = _parse(text)
        if stored in self._modes:
            return stored
        if call.iteration == 1:  # once per inference is enough
            await _warn(scope, "the agent mode of the session is not known; the default is used", stored)
        return self._default

    def _record_tools(self, scope: Scope, mode: str) -> None:
        allowed = self._modes[mode].allowed_tools
        text = None if allowed is None else json.dumps(allowed)
        if scope.data.get(ALLOWED_TOOLS_KEY) != text:
            scope.set_data(ALLOWED_TOOLS_KEY, text)

    def _in_mode(self, call: EngineCall, mode: str) -> EngineCall:
        prompt = self._prompt(mode)
        blocks = put_behind_system(call.blocks, prompt) if prompt else call.blocks
        allowed = self._modes[mode].allowed_tools
        if allowed is None:
            return replace(call, blocks=blocks)
        tools = tuple(tool for tool in call.tools if tool.name in allowed)
        return replace(call, blocks=blocks, tools=tools, config=_choosing_of(tools, call.config))

    def _prompt(self, mode: str) -> str:
        prompt = self._modes[mode].prompt
        others = sorted(self._modes.keys() - {mode})
        if not others:
            return prompt
        how = (
            f"Your mode is {mode}; the other modes are {', '.join(others)}. To change it, write in your answer, "
            f'with the name of the mode and the reason: <turnwire:{_SECTION} mode="{others[0]}">the reason'
            f"</turnwire:{_SECTION}>. The change takes effect after that answer."
        )
        return f"{prompt}\n\n{how}" if prompt else how

    async def _change(self, scope: Scope, mode: str, section: Section) -> None:
        wanted = section.attributes.get("mode", "")
        if wanted == mode:
            return
        if wanted not in self._modes:
            await _warn(scope, "the model wants an agent mode that is not known; the mode stays", wanted)
            return
        scope.set_data(MODE_KEY, json.dumps(wanted))
        self._record_tools(scope, wanted)
        reason = json.dumps({"reason": section.text[:_REASON_LENGTH_MAX]}, ensure_ascii=False)
        await scope.tell(AgentModeChanged(f"Mode {wanted}", wanted, from_mode=mode, data=reason))


def _parse(text: str) -> str:
    """Return the name of a mode as the data has it; what is no string stands for itself."""
    try:
        stored: object = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return stored if isinstance(stored, str) else text


def _choosing_of(tools: Sequence[Tool], config: InferenceConfig) -> InferenceConfig:
    """Return the configuration without a choice that the tools which are left cannot meet."""
    names = {tool.name for tool in tools}
    is_met = config.tool_choice in {"", "auto", "none", *names} or (config.tool_choice == "required" and names)
    return config if is_met else replace(config, tool_choice="")


async def _warn(scope: Scope, message: str, name: str) -> None:
    fields = {"mode": json.dumps(name[:_NAME_LENGTH_MAX], ensure_ascii=False)}
    await scope.tell(Log("warning", message, fields))

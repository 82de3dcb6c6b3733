"""The middleware thinking_mode: what a model says of the phases of its thinking, as events.

The model announces a phase by a section of its text or of its reasoning (see sections.py):

    <turnwire:thinking_mode mode="exploring" phase="gathering" confidence="low">what it thinks</turnwire:thinking_mode>

It becomes thinking.mode.started when the opening tag is complete, thinking.mode.update now and then while its text
goes on, and thinking.mode.completed. `mode` and `phase` may be missing; attributes besides them are the `extra_data`,
as strings of one JSON object. A section that is not closed in its part, or whose engine call ended otherwise than
well, completes without success and says why. The section stays in the text: what was told is what is stored.
"""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pydantic import BaseModel, ConfigDict

from turnwire_server.domain.event import ThinkingMode as ThinkingModeSaid
from turnwire_server.domain.event import ThinkingModeCompleted, ThinkingModeStarted, ThinkingModeUpdate
from turnwire_server.engines.base import Emit, EngineCall, EngineChunk, EngineResult, PartKind
from turnwire_server.middleware.base import Proceed, Scope
from turnwire_server.middleware.instruction import put_behind_system
from turnwire_server.middleware.sections import CallReader, Section, SectionState
from turnwire_server.tools.base import ServerTool

# An update has the reasoning so far. It is told when that has grown by a quarter, and by this many characters: so all
# updates of a section together are a few times as long as its text, and not its square.
_UPDATE_GROWTH = 1.25
_UPDATE_LENGTH_MIN = 200

# How many sections of one engine call are told; further ones are text and nothing else.
_SECTIONS_MAX = 256

_SECTION = "thinking_mode"

_HOW = (
    "You may show the phases of your thinking. Write each one as "
    f'<turnwire:{_SECTION} mode="the kind of thinking" phase="what it is at">what you think</turnwire:{_SECTION}>.'
)


class ThinkingModeSettings(BaseModel):
    """The settings of thinking_mode. Without `prompt` nobody tells the model how; the profile's own prompt has to."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: bool = True


class ThinkingMode:
    """See Middleware."""

    name = "thinking_mode"
    tools: Sequence[ServerTool] = ()

    def __init__(self, settings: ThinkingModeSettings) -> None:
        self._has_prompt = settings.prompt

    async def call(self, call: EngineCall, emit: Emit, scope: Scope, proceed: Proceed) -> EngineResult:
        """Make the call, and tell of the phases that the model announces in it."""
        if self._has_prompt:
            call = replace(call, blocks=put_behind_system(call.blocks, _HOW))
        reader = CallReader(_SECTION, {PartKind.TEXT, PartKind.THINKING})
        phases = _Phases(scope)

        async def hear(chunk: EngineChunk) -> None:
            await emit(chunk)
            for section in reader.take(chunk):
                await phases.tell(section)

        try:
            result = await proceed(call, hear)
        except (Exception, asyncio.CancelledError) as error:
            how = "was cancelled" if isinstance(error, asyncio.CancelledError) else "failed"
            for section in reader.end():
                await phases.tell(section, f"the engine call {how}")
            raise
        for section in reader.end():
            await phases.tell(section)
        return result

    async def aclose(self) -> None:
        """There is nothing to give back."""


@dataclass(slots=True)
class _Phase:
    entity: str
    told_length: int = 0


class _Phases:
    """The sections of one engine call that are under way, as they were told."""

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self._open: dict[Section, _Phase] = {}  # at most one per part
        self._count = 0

    async def tell(self, section: Section, error: str = "the section was not closed") -> None:
        """Tell what is new of a section; `error` is why, if it was broken."""
        phase = self._open.get(section)
        if phase is None:
            if self._count == _SECTIONS_MAX:
                return
            self._count += 1
            phase = self._open[section] = _Phase(self._scope.mint())
            await self._scope.tell(ThinkingModeStarted(_said(section, has_text=False)), phase.entity)
        match section.state:
            case SectionState.OPEN:
                due = max(phase.told_length + _UPDATE_LENGTH_MIN, phase.told_length * _UPDATE_GROWTH)
                if section.length >= due:
                    phase.told_length = section.length
                    await self._scope.tell(ThinkingModeUpdate(_said(section)), phase.entity)
            case SectionState.CLOSED:
                del self._open[section]
                await self._scope.tell(ThinkingModeCompleted(_said(section), success=True), phase.entity)
            case SectionState.BROKEN:
                del self._open[section]
                await self._scope.tell(ThinkingModeCompleted(_said(section), success=False, error=error), phase.entity)


def _said(section: Section, *, has_text: bool = True) -> ThinkingModeSaid:
    extra = {name: value for name, value in section.attributes.items() if name not in {"mode", "phase"}}
    return ThinkingModeSaid(
        mode=section.attributes.get("mode", ""),
        phase=section.attributes.get("phase", ""),
        reasoning=section.text if has_text else "",
        extra_data=json.dumps(extra, ensure_ascii=False) if extra else "",
    )

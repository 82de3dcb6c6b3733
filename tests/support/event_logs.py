"""Logs as servers write them, drawn by hypothesis: what may come next is what some server could do next.

Several inferences in one session, one of them active at a time; queued ones that are cancelled; steps that are
committed; attempts that are lost or handed back, at any moment, with all that they told since the last step void;
waits for a client; blocks that are cut off; texts that are left out of their final.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from hypothesis import strategies as st

from turnwire_server.domain.errors import AttemptLostError
from turnwire_server.domain.event import (
    AgentMode,
    Cancelled,
    Custom,
    EngineCallFinished,
    EngineCallStarted,
    Event,
    Failed,
    InferenceAttemptLost,
    InferenceFinished,
    InferenceQueued,
    InferenceStarted,
    LlmDelta,
    LlmFinal,
    LlmStart,
    LlmThinkingDelta,
    LlmThinkingFinal,
    LlmThinkingStart,
    Log,
    Outcome,
    Payload,
    Succeeded,
    ThinkingMode,
    ThinkingModeCompleted,
    ThinkingModeStarted,
    ThinkingModeUpdate,
    ToolCallCompleted,
    ToolDelta,
    ToolDone,
    ToolResult,
    ToolsRequired,
    ToolStart,
    TurnClosed,
    TurnOpened,
)
from turnwire_server.domain.inference import FinishClass, Usage
from turnwire_server.domain.tool import ToolCall, ToolUse

SESSION = "s"
EPOCH = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)

# A text that is longer is left out of its final. Real servers do that only where the event would pass 256 KiB.
TEXT_BYTES_MAX = 60

# What one delta may say: short, of one to four bytes a letter, and now and then so long that few of them can be joined.
PIECES = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8),
    st.sampled_from(["a", "bc", "ü", "€", "𝄞", '{"x": ', "one two three", "and", "on", "𝄞" * 32_768, "ü" * 30_000]),
)

_STARTS: tuple[tuple[str, Payload, Callable[[str, int], Payload]], ...] = (
    ("text", LlmStart(), LlmDelta),
    ("thinking", LlmThinkingStart(), LlmThinkingDelta),
    ("call", ToolStart("look_up"), ToolDelta),
)


@dataclass
class _Open:
    """A block that is being told."""

    entity: str
    delta: Callable[[str, int], Payload]
    text: str = ""


@dataclass
class _Live:
    """An inference that has not ended."""

    inference_id: str
    state: str = "queued"
    attempt: int = 0
    event_count: int = 0
    holds_through: int = 0
    last_sequence: int = 0
    is_opened: bool = False
    is_calling: bool = False
    is_untold: bool = True  # no engine call of this step yet
    open: list[_Open] = field(default_factory=list[_Open])
    calls: list[str] = field(default_factory=list[str])
    phases: list[str] = field(default_factory=list[str])


class _Writer:
    """Writes a log, one action at a time; what it does not know it draws."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.events: list[Event] = []
        self._draw = draw
        self._live: list[_Live] = []
        self._count = 0

    def act(self) -> None:
        """Do one of the things that could come next."""
        runs = next((live for live in self._live if live.state != "queued"), None)
        actions = [self._accept]
        if self._live and not runs:
            actions += [self._start] * 4
        if any(live.state == "queued" for live in self._live):
            actions += [self._cancel]
        if runs and runs.state == "waiting":
            actions += [lambda: self._release(runs)] * 4
        if runs and runs.state == "running":
            actions += [lambda: self._lose(runs), lambda: self._finish(runs)]
            actions += [lambda: self._go_on(runs)] * 40
        self._draw(st.sampled_from(actions))()

    def _tell(self, live: _Live, payload: Payload, entity: str = "") -> None:
        sequence = len(self.events) + 1
        time = EPOCH + timedelta(seconds=sequence)
        self.events.append(Event(SESSION, live.inference_id, time, payload, entity, live.attempt, sequence))
        live.last_sequence = sequence
        live.event_count += 1

    def _mint(self) -> str:
        self._count += 1
        return f"e{self._count}"

    def _accept(self) -> None:
        live = _Live(f"i{self._mint()}")
        self._live.append(live)
        self._tell(live, InferenceQueued(len(self._live)))

    def _cancel(self) -> None:
        live = self._draw(st.sampled_from([live for live in self._live if live.state == "queued"]))
        self._end(live, Cancelled("not needed"))

    def _start(self) -> None:
        live = self._live[0]
        live.state = "running"
        self._tell(live, InferenceStarted("scripted", "scripted"))
        if not live.is_opened:
            self._tell(live, TurnOpened(0, 1))
        live.is_opened = True
        self._hold(live)

    def _hold(self, live: _Live) -> None:
        live.holds_through, live.is_untold = live.last_sequence, True

    def _lose(self, live: _Live) -> None:
        handed_back = self._draw(st.booleans())
        self._tell(live, InferenceAttemptLost(live.attempt, live.holds_through, handed_back))
        live.attempt += not handed_back
        live.state, live.is_calling, live.open, live.calls, live.phases = "queued", False, [], [], []
        self._live.sort(key=lambda other: other is not live)

    def _release(self, live: _Live) -> None:
        for call in live.calls:
            self._tell(live, ToolResult(ToolUse(call, '"yes"')), call)
            self._tell(live, ToolDone(), call)
        self._tell(live, InferenceQueued(1))
        live.state, live.calls = "queued", []
        self._live.sort(key=lambda other: other is not live)

    def _finish(self, live: _Live) -> None:
        failed = Failed(AttemptLostError(attempt=0).failure())
        outcomes: list[Outcome] = [Succeeded(FinishClass.COMPLETED), failed, Cancelled("enough")]
        self._end(live, self._draw(st.sampled_from(outcomes)))

    def _end(self, live: _Live, outcome: Outcome) -> None:
        if live.is_opened:
            self._tell(live, TurnClosed(0, 2))
        self._tell(live, InferenceFinished(outcome, Usage(1, 2), live.event_count + 1))
        self._live.remove(live)

    def _go_on(self, live: _Live) -> None:
        """One event of an attempt, or the end of a step."""
        if live.calls and not live.is_calling and live.is_untold:
            self._answer(live)
        elif not live.is_calling and live.is_untold:
            live.is_calling, live.is_untold = True, False
            self._tell(live, EngineCallStarted(1, "scripted"), self._mint())
        else:
            actions = [self._remark, self._think]
            if live.is_calling:
                actions += (
                    [self._begin] * 3
                    + [self._stop_calling]
                    + [self._say, self._say, self._complete] * 3 * bool(live.open)
                )
            else:
                actions += [self._hold] * 4
            self._draw(st.sampled_from(actions))(live)

    def _answer(self, live: _Live) -> None:
        if self._draw(st.booleans()):
            self._tell(live, ToolsRequired(tuple(ToolCall(call, "look_up", "") for call in live.calls)))
            live.state = "waiting"
            self._hold(live)
            return
        for call in live.calls:
            self._tell(live, ToolResult(ToolUse(call, '"sunny"')), call)
            self._tell(live, ToolDone(), call)
        live.calls = []
        if self._draw(st.booleans()):
            self._hold(live)

    def _begin(self, live: _Live) -> None:
        kind, start, delta = self._draw(st.sampled_from(_STARTS))
        # Providers number their calls as they like: the same id comes again in another attempt or step.
        entity = self._draw(st.sampled_from(["call_1", "call_2"])) if kind == "call" else self._mint()
        if entity not in [*live.calls, *(block.entity for block in live.open)]:
            live.open.append(_Open(entity, delta))
            self._tell(live, start, entity)

    def _say(self, live: _Live) -> None:
        block = self._draw(st.sampled_from(live.open))
        for _ in range(self._draw(st.integers(1, 5))):
            piece = self._draw(PIECES)
            self._tell(live, block.delta(piece, len(block.text.encode())), block.entity)
            block.text += piece

    def _complete(self, live: _Live) -> None:
        block = self._draw(st.sampled_from(live.open))
        live.open.remove(block)
        size = len(block.text.encode())
        is_omitted = size > TEXT_BYTES_MAX
        text = "" if is_omitted else block.text
        if block.delta is LlmDelta:
            self._tell(live, LlmFinal(text, size, is_omitted), block.entity)
        elif block.delta is LlmThinkingDelta:
            self._tell(live, LlmThinkingFinal(text, size, is_omitted, signature="signed"), block.entity)
        elif self._draw(st.integers(0, 3)):
            self._tell(live, ToolCallCompleted(ToolCall(block.entity, "look_up", text), is_omitted), block.entity)
            live.calls.append(block.entity)
        else:  # its arguments were cut
            self._tell(live, ToolDone(), block.entity)

    def _stop_calling(self, live: _Live) -> None:
        while live.open:
            self._complete(live)
        live.is_calling = False
        self._tell(live, EngineCallFinished(Usage(1, 2), FinishClass.COMPLETED), self._mint())

    def _remark(self, live: _Live) -> None:
        remarks: list[Payload] = [Log("info", "so far"), AgentMode("changed", "calm"), Custom("disco.line", '"hm"')]
        self._tell(live, self._draw(st.sampled_from(remarks)), self._mint())

    def _think(self, live: _Live) -> None:
        entity = self._draw(st.sampled_from(["phase_1", "phase_2"]))
        mode = ThinkingMode("careful", entity, self._draw(st.text("xyz", max_size=3)))
        if entity not in live.phases:
            live.phases.append(entity)
            self._tell(live, ThinkingModeStarted(mode), entity)
            return
        says: list[Payload] = [ThinkingModeUpdate(replace(mode, reasoning=mode.reasoning + "!"))] * 4
        says.append(ThinkingModeCompleted(mode, success=True))
        self._tell(live, self._draw(st.sampled_from(says)), entity)


@st.composite
def event_logs(draw: st.DrawFn, actions_max: int = 60) -> list[Event]:
    """Return a log: the events of a session, with the sequences 1, 2, 3, ..."""
    writer = _Writer(draw)
    for _ in range(draw(st.integers(1, actions_max))):
        writer.act()
    return writer.events

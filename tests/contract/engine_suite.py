"""What every engine keeps, whatever it is made of.

A subclass has a fixture `subject`. Its calls do what their names say: `text` says `subject.text`, `thinking` reasons
and then speaks, `tools` asks for two tools, `slow` speaks for seconds, `hang` says nothing ever, `failure` fails.
"""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

import pytest

from turnwire_server.domain.errors import EngineError
from turnwire_server.domain.inference import FinishClass
from turnwire_server.engines.base import (
    Engine,
    EngineCall,
    EngineChunk,
    EngineResult,
    PartDelta,
    PartEnd,
    PartKind,
    PartStart,
)

# A cancel has to be over within 2 s (contract: Cancel); an engine's share of that is much less.
CANCEL_SECONDS_MAX = 1.0


async def nothing_to_close() -> None:
    """An engine without connections."""


@dataclass(frozen=True, slots=True)
class Subject:
    """An engine and what to ask it. `wait_closed` returns once the provider has seen the connection go."""

    engine: Engine
    calls: Mapping[str, EngineCall]
    text: str
    wait_closed: Callable[[], Awaitable[None]] = nothing_to_close


@dataclass(slots=True)
class Collector:
    """An emit that keeps what it gets."""

    chunks: list[EngineChunk] = field(default_factory=list[EngineChunk])
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    busy: bool = False

    async def emit(self, chunk: EngineChunk) -> None:
        """Keep a chunk; take a moment, and insist on being asked for one chunk at a time."""
        assert not self.busy, "emit was called while it was busy"
        self.busy = True
        await asyncio.sleep(0)
        self.busy = False
        self.chunks.append(chunk)
        self.arrived.set()

    @property
    def starts(self) -> list[PartStart]:
        """The parts."""
        return [chunk for chunk in self.chunks if isinstance(chunk, PartStart)]

    def said(self, part: int) -> str:
        """All of one part."""
        return "".join(each.delta for each in self.chunks if isinstance(each, PartDelta) and each.part == part)

    def text(self, kind: PartKind = PartKind.TEXT) -> str:
        """All parts of one kind."""
        return "".join(self.said(start.part) for start in self.starts if start.kind is kind)


def check_grammar(chunks: list[EngineChunk], *, complete: bool) -> None:
    """Assert that parts are numbered from 0, start once, grow, and end once; and that deltas are whole code points."""
    open_parts: dict[int, PartStart] = {}
    ended: set[int] = set()
    for chunk in chunks:
        match chunk:
            case PartStart(part=part):
                assert part == len(open_parts) + len(ended), f"{chunk} is out of order"
                assert (chunk.name != "") == (chunk.kind is PartKind.TOOL_CALL)
                open_parts[part] = chunk
            case PartDelta(part=part, delta=delta):
                assert part in open_parts, f"{chunk} of a part that is not open"
                delta.encode()
            case PartEnd(part=part):
                del open_parts[part]
                ended.add(part)
    assert not (complete and open_parts), f"{open_parts} did not end"


async def play(subject: Subject, name: str) -> tuple[EngineResult, Collector]:
    """Make a call and check its grammar."""
    collector = Collector()
    result = await subject.engine.run(subject.calls[name], collector.emit)
    check_grammar(collector.chunks, complete=True)
    return result, collector


async def assert_usable(subject: Subject) -> None:
    """Assert that the next call works."""
    result, collector = await play(subject, "text")
    assert result.finish_class is FinishClass.COMPLETED
    assert collector.text() == subject.text


class EngineSuite:
    """The promises of the Engine port."""

    async def test_text(self, subject: Subject) -> None:
        result, collector = await play(subject, "text")
        assert result.finish_class is FinishClass.COMPLETED
        assert collector.text() == subject.text
        assert result.model
        assert result.stop_reason

    async def test_thinking_comes_before_text(self, subject: Subject) -> None:
        result, collector = await play(subject, "thinking")
        assert [start.kind for start in collector.starts] == [PartKind.THINKING, PartKind.TEXT]
        assert collector.text(PartKind.THINKING)
        assert result.finish_class is FinishClass.COMPLETED

    async def test_tool_calls(self, subject: Subject) -> None:
        result, collector = await play(subject, "tools")
        calls = [start for start in collector.starts if start.kind is PartKind.TOOL_CALL]
        assert len(calls) == 2
        assert len({call.id for call in calls}) == 2
        for call in calls:
            assert isinstance(json.loads(collector.said(call.part)), dict)
        assert result.finish_class is FinishClass.TOOL_CALLS_PENDING

    async def test_calls_do_not_mix(self, subject: Subject) -> None:
        for result, collector in await asyncio.gather(*(play(subject, "text") for _ in range(8))):
            assert result.finish_class is FinishClass.COMPLETED
            assert collector.text() == subject.text

    async def test_cancel_in_the_middle(self, subject: Subject) -> None:
        collector = Collector()
        task = asyncio.create_task(subject.engine.run(subject.calls["slow"], collector.emit))
        await asyncio.wait_for(collector.arrived.wait(), 30)
        await self._cancel(subject, task)
        check_grammar(collector.chunks, complete=False)
        await assert_usable(subject)

    async def test_cancel_of_a_hang(self, subject: Subject) -> None:
        collector = Collector()
        task = asyncio.create_task(subject.engine.run(subject.calls["hang"], collector.emit))
        await asyncio.wait([task], timeout=0.3)
        await self._cancel(subject, task)
        assert collector.text() == ""
        await assert_usable(subject)

    async def test_cancel_before_it_began(self, subject: Subject) -> None:
        collector = Collector()
        task = asyncio.create_task(subject.engine.run(subject.calls["text"], collector.emit))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await assert_usable(subject)

    async def test_cancel_while_emit_waits_for_room(self, subject: Subject) -> None:
        waiting = asyncio.Event()

        async def emit(_: EngineChunk) -> None:
            waiting.set()
            await asyncio.Event().wait()

        task = asyncio.create_task(subject.engine.run(subject.calls["slow"], emit))
        await asyncio.wait_for(waiting.wait(), 30)
        await self._cancel(subject, task)
        await assert_usable(subject)

    async def test_what_emit_raises_passes_unchanged(self, subject: Subject) -> None:
        class TooMuchError(Exception):
            pass

        async def emit(_: EngineChunk) -> None:
            raise TooMuchError

        with pytest.raises(TooMuchError):
            await subject.engine.run(subject.calls["slow"], emit)
        await asyncio.wait_for(subject.wait_closed(), 5)
        await assert_usable(subject)

    async def test_failure_is_an_engine_error(self, subject: Subject) -> None:
        collector = Collector()
        with pytest.raises(EngineError) as caught:
            await subject.engine.run(subject.calls["failure"], collector.emit)
        assert caught.value.metadata.keys() == set(caught.value.keys)
        assert all(caught.value.metadata.values())
        check_grammar(collector.chunks, complete=False)
        await assert_usable(subject)

    async def _cancel(self, subject: Subject, task: "asyncio.Task[EngineResult]") -> None:
        began = time.monotonic()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(subject.wait_closed(), 5)
        assert time.monotonic() - began < CANCEL_SECONDS_MAX

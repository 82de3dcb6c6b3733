"""A real server with profiles of its own, which can be ended at any moment and started again in the same place.

async with LiveServer(folder, {"scripted": {"engine": "scripted"}}) as server:
    session = await server.session()
    ended = await session.say("hello", script=script([say("hi")]))
    await server.restart(signal.SIGKILL)
"""

import asyncio
import json
import os
import signal
from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from support.rpc import TERMINAL, Stubs, connect
from support.server import ServerProcess, server_on
from turnwire.v1 import event_pb2, inference_pb2, session_service_pb2, tool_pb2, turn_pb2
from turnwire.v1 import inference_service_pb2 as pb
from turnwire_conformance.promises import check_inference

QUEUED, RUNNING, WAITING, PAUSED, SUCCEEDED, FAILED, CANCELLED = (
    inference_pb2.INFERENCE_STATE_QUEUED,
    inference_pb2.INFERENCE_STATE_RUNNING,
    inference_pb2.INFERENCE_STATE_WAITING_FOR_TOOLS,
    inference_pb2.INFERENCE_STATE_PAUSED,
    inference_pb2.INFERENCE_STATE_SUCCEEDED,
    inference_pb2.INFERENCE_STATE_FAILED,
    inference_pb2.INFERENCE_STATE_CANCELLED,
)
TESTS = Path(__file__).resolve().parents[1]

# Events that say little of the order of things.
_MINOR = {"llm_delta", "llm_thinking_delta", "tool_delta", "engine_call_started", "engine_call_finished"}

Profiles = Mapping[str, Mapping[str, object]]


@dataclass(frozen=True, slots=True)
class Ended:
    """What an inference that has ended left. Its events keep the promises."""

    inference: inference_pb2.Inference
    turn: turn_pb2.Turn
    events: list[event_pb2.Event]

    @property
    def produced(self) -> list[turn_pb2.Block]:
        """The blocks that the inference produced."""
        return list(self.turn.blocks[self.turn.given_block_count :])

    @property
    def text(self) -> str:
        """All text that it produced."""
        return "".join(block.llm_text.text for block in self.produced)

    @property
    def outcomes(self) -> dict[str, str]:
        """What came of each tool call: a result, or the code of an error."""
        uses = [block.tool_use for block in self.produced if block.HasField("tool_use")]
        assert len({use.tool_call for use in uses}) == len(uses), "a call was answered twice"
        return {use.tool_call: use.error.code if use.HasField("error") else use.result for use in uses}

    @property
    def names(self) -> list[str]:
        """What its events are called, in order, without deltas and the events of engine calls."""
        names = [event.WhichOneof("payload") or "" for event in self.events]
        return [name for name in names if name not in _MINOR]

    def told(self, name: str) -> list[Any]:
        """Return what the events of one name say."""
        return [getattr(event, name) for event in self.events if event.HasField(name)]  # type: ignore[arg-type]


class LiveServer:
    """A server on a SQLite file, with profiles; its process finds the tools in tests/support."""

    def __init__(
        self, folder: Path, profiles: Profiles, *arguments: str, environment: Mapping[str, str] | None = None
    ) -> None:
        file = folder / "profiles.yaml"
        content = {"default": next(iter(profiles)), "profiles": {name: dict(each) for name, each in profiles.items()}}
        file.write_text(json.dumps(content), encoding="utf-8")  # JSON is YAML
        path = os.pathsep.join(filter(None, (str(TESTS), os.environ.get("PYTHONPATH", ""))))
        arguments = ("--profiles", str(file), "--drain-grace-seconds", "0", *arguments)
        environment = {**(environment or {}), "PYTHONPATH": path}
        self.process: ServerProcess = server_on(folder / "turnwire.db", *arguments, environment=environment)
        self._channel = AsyncExitStack()
        self._is_running = False
        self.stubs: Stubs

    async def start(self) -> None:
        """Start it, and connect."""
        await asyncio.to_thread(self.process.start)
        self._is_running = True
        self.stubs = await self._channel.enter_async_context(connect(self.process.address))

    async def end(self, how: signal.Signals) -> None:
        """End it: as a crash would, or as an operator would."""
        await self._channel.aclose()
        self._is_running = False
        self.process.signal(how)
        await asyncio.to_thread(self.process.wait)

    async def restart(self, how: signal.Signals) -> None:
        """End it, and start it again."""
        await self.end(how)
        await self.start()

    async def session(self, profile: str = "", session_id: str = "") -> "Session":
        """Create a session, all inferences of which use one profile."""
        request = session_service_pb2.CreateSessionRequest()
        request.session.session_id = session_id
        created = await self.stubs.session.CreateSession(request)
        return Session(self, created.session.session_id, profile)

    async def __aenter__(self) -> "LiveServer":
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._is_running:
            await self.end(signal.SIGTERM)


@dataclass(slots=True)
class Session:
    """One session of a server, whatever becomes of its process."""

    server: LiveServer
    session_id: str
    profile: str = ""
    options: dict[str, Any] = field(default_factory=dict[str, Any])

    @property
    def stubs(self) -> Stubs:
        """The services of the process that serves now."""
        return self.server.stubs

    def request(
        self,
        text: str = "hello",
        *,
        script: str = "",
        tools: Iterable[tool_pb2.Tool] = (),
        schema: str = "",
        config: inference_pb2.InferenceConfig | None = None,
        snapshots: bool = False,
        **fields: Any,
    ) -> pb.StartInferenceRequest:
        """Return the request for an inference; an empty text means no input of its own."""
        values: dict[str, Any] = {"session_id": self.session_id, "profile": self.profile, **self.options, **fields}
        request = pb.StartInferenceRequest(**values)
        if text:
            request.input.add(user=turn_pb2.UserBlock(text=text))
        overrides = inference_pb2.Overrides(
            engine_options=script, tools=tools, output_schema=schema, config=config, record_snapshots=snapshots
        )
        if overrides != inference_pb2.Overrides():
            request.overrides.CopyFrom(overrides)
        return request

    async def start(self, text: str = "hello", **fields: Any) -> inference_pb2.Inference:
        """Start an inference."""
        return (await self.stubs.inference.StartInference(self.request(text, **fields))).inference

    async def say(self, text: str = "hello", **fields: Any) -> Ended:
        """Start an inference, and return what it left."""
        return await self.finish(await self.start(text, **fields))

    async def reach(self, inference: inference_pb2.Inference, *states: int) -> inference_pb2.Inference:
        """Return an inference once it has ended, or waits for its client; that is to be one of some states."""
        while True:
            found = (await self.stubs.inference.Wait(pb.WaitRequest(inference_id=inference.inference_id))).inference
            if found.state in (*TERMINAL, WAITING, PAUSED):
                assert found.state in states, found
                return found

    async def finish(self, inference: inference_pb2.Inference) -> Ended:
        """Return what an inference left, once it has ended."""
        ended = await self.stubs.finish(inference.inference_id)
        events = await self.events(inference)
        check_inference(events)
        return Ended(ended.inference, ended.turn, events)

    async def events(self, inference: inference_pb2.Inference) -> list[event_pb2.Event]:
        """Return the events of an inference as far as it has come."""
        request = pb.SubscribeEventsRequest(
            session_id=self.session_id,
            inference_id=inference.inference_id,
            from_beginning=pb.FromBeginning(),
            until=pb.SUBSCRIBE_UNTIL_CAUGHT_UP,
        )
        return [event async for response in self.stubs.inference.SubscribeEvents(request) for event in response.events]

    async def log(self) -> list[event_pb2.Event]:
        """Return the whole log."""
        request = pb.SubscribeEventsRequest(
            session_id=self.session_id, from_beginning=pb.FromBeginning(), until=pb.SUBSCRIBE_UNTIL_CAUGHT_UP
        )
        return [event async for response in self.stubs.inference.SubscribeEvents(request) for event in response.events]

    async def told(self, inference: inference_pb2.Inference, name: str, count: int = 1) -> list[Any]:
        """Return what the events of a name say, once an inference has told so many of them."""
        request = pb.SubscribeEventsRequest(
            session_id=self.session_id, inference_id=inference.inference_id, from_beginning=pb.FromBeginning()
        )
        found: list[Any] = []
        async for response in self.stubs.inference.SubscribeEvents(request):
            found += [getattr(event, name) for event in response.events if event.HasField(name)]  # type: ignore[arg-type]
            if len(found) >= count:
                break
        return found

    async def submit(
        self, inference: inference_pb2.Inference, *outcomes: tool_pb2.ToolOutcome, key: str = ""
    ) -> inference_pb2.Inference:
        """Answer tool calls."""
        request = pb.SubmitToolResultsRequest(
            inference_id=inference.inference_id, outcomes=outcomes, idempotency_key=key
        )
        return (await self.stubs.inference.SubmitToolResults(request)).inference

    async def cancel(self, inference: inference_pb2.Inference) -> inference_pb2.Inference:
        """Request the cancel of an inference."""
        request = pb.CancelRequest(inference_id=inference.inference_id)
        return (await self.stubs.inference.Cancel(request)).inference

    async def turn(self, index: int | None = None) -> turn_pb2.Turn:
        """Return a turn with all its blocks; the newest one, unless it says which."""
        at = session_service_pb2.TurnAt(session_id=self.session_id, index=index)
        request = session_service_pb2.GetTurnRequest(at=at, view=turn_pb2.TURN_VIEW_FULL)
        return (await self.stubs.session.GetTurn(request)).turn

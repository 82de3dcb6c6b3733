"""A provider API server that nobody here wrote, and a relay in front of it that sees and cuts connections.

`aimock` is the npm package @copilotkit/aimock, which `make deps` unpacks. One process speaks all four dialects; what it
says is chosen by a word in the newest user message, see `fixtures`. The fixture `aimock` starts it once per session:

    from support.aimock import aimock_fixture  # noqa: F401

    async def test_it(aimock: Aimock) -> None:
        options = aimock.options("anthropic")     # engine options; aimock.model("anthropic") goes with them
        ...                                       # then say PLAIN, THINKING, TOOL, BROKEN, LIMITED, HANGING, ...
"""

import asyncio
import json
import os
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import AsyncGenerator, Generator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

ROOT = Path(__file__).resolve().parents[2]
CLI = ROOT / "third_party" / "aimock" / "dist" / "cli.js"
START_SECONDS_MAX = 30

MODELS: Mapping[str, str] = {
    "openai-chat": "gpt-5-mini",
    "openai-responses": "gpt-5-mini",
    "anthropic": "claude-sonnet-5-5",
    "google": "gemini-2.5-flash",
}
DIALECTS = tuple(MODELS)

Json = Mapping[str, object]

# What to say to aimock, and what it then does.
PLAIN = "please be plain"
PLAIN_TEXT = "The quick brown fox jumps over the lazy dog: naïve café, 日本語, 🦊🐕."
THINKING = "please think aloud"
THOUGHT = "The user wants me to think. I think, therefore I answer."
THINKING_TEXT = "I have thought about it."
SIGNATURE = "c2lnbmVkLWJ5LWFpbW9jaw=="
TOOL = "please use a tool"
TOOL_ID = "call_weather_1"
TOOL_NAME = "get_weather"
TOOL_ARGS: Mapping[str, object] = {"city": "Zürich", "days": 3}
TOOL_RESULT_TEXT = "It is sunny in Zürich."
TOOLS = "please use two tools"
TOOLS_TEXT = "Two at once."
SECOND_TOOL_NAME = "get_time"
SECOND_TOOL_ARGS: Mapping[str, object] = {"zone": "CET"}
LONG = "please be cut at the limit"
LONG_TEXT = "This sentence was going to be much lon"
REFUSED = "please be refused"
SLOW = "please be slow"
SLOW_TEXT = "one two three four five six seven eight nine ten " * 40
SLOW_CHUNK_SECONDS = 0.05
BROKEN = "please break off"
HANGING = "please hang"
LIMITED = "please be limited"
FAILING = "please fail"
UNAUTHENTICATED = "please lock me out"
REJECTED = "please reject me"
KEY = "sk-aimock-secret"
USAGE: Mapping[str, int] = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}


def _error(status: int, message: str, kind: str) -> dict[str, object]:
    return {"status": status, "error": {"message": message, "type": kind}}


def fixtures() -> dict[str, object]:
    """Return aimock's fixture file. The first entry that matches wins."""
    tool = {"id": TOOL_ID, "name": TOOL_NAME, "arguments": dict(TOOL_ARGS)}
    second = {"id": "call_time_2", "name": SECOND_TOOL_NAME, "arguments": dict(SECOND_TOOL_ARGS)}
    both: Json = {"content": TOOLS_TEXT, "toolCalls": [tool, second]}
    thought: Json = {"content": THINKING_TEXT, "reasoning": THOUGHT, "reasoningSignature": SIGNATURE}
    gemini = MODELS["google"]
    entries: list[tuple[Json, Json, Json]] = [
        ({"userMessage": TOOL, "hasToolResult": True}, {"content": TOOL_RESULT_TEXT}, {}),
        # Left alone, aimock ends these with words that Gemini and Anthropic do not use.
        ({"userMessage": TOOL, "model": gemini}, {"toolCalls": [tool], "finishReason": "stop"}, {}),
        ({"userMessage": TOOLS, "model": gemini}, {**both, "finishReason": "stop"}, {}),
        ({"userMessage": REFUSED, "model": MODELS["anthropic"]}, {"content": "No", "finishReason": "refusal"}, {}),
        ({"userMessage": TOOL}, {"toolCalls": [tool]}, {"chunkSize": 7}),
        ({"userMessage": TOOLS}, both, {"chunkSize": 7}),
        ({"userMessage": PLAIN}, {"content": PLAIN_TEXT, "usage": dict(USAGE)}, {"chunkSize": 5}),
        ({"userMessage": THINKING}, thought, {"chunkSize": 9}),
        ({"userMessage": LONG}, {"content": LONG_TEXT, "finishReason": "length"}, {}),
        ({"userMessage": REFUSED}, {"content": "No", "finishReason": "content_filter"}, {}),
        ({"userMessage": SLOW}, {"content": SLOW_TEXT}, {"chunkSize": 4, "latency": SLOW_CHUNK_SECONDS * 1000}),
        ({"userMessage": BROKEN}, {"content": SLOW_TEXT}, {"chunkSize": 4, "latency": 20, "truncateAfterChunks": 8}),
        ({"userMessage": HANGING}, {"content": PLAIN_TEXT}, {"latency": 3_600_000}),
        ({"userMessage": LIMITED}, _error(429, "slow down", "rate_limit_error"), {}),
        ({"userMessage": FAILING}, _error(500, "out of order", "api_error"), {}),
        ({"userMessage": UNAUTHENTICATED}, _error(401, f"wrong key: {KEY[:-3]}***", "authentication_error"), {}),
        ({"userMessage": REJECTED}, _error(400, f"no such thing for {KEY}", "invalid_request_error"), {}),
    ]
    return {"fixtures": [{"match": match, "response": said, **how} for match, said, how in entries]}


@dataclass(frozen=True, slots=True)
class Aimock:
    """A running aimock."""

    port: int

    def base_url(self, dialect: str, port: int | None = None) -> str:
        """Return the base_url for a dialect; `port` is that of a relay in front of it."""
        url = f"http://127.0.0.1:{port or self.port}"
        return f"{url}/v1" if dialect.startswith("openai") else url

    def options(self, dialect: str, port: int | None = None) -> dict[str, object]:
        """Return the pydantic_ai engine's options for a dialect."""
        return {"dialect": dialect, "base_url": self.base_url(dialect, port)}

    def model(self, dialect: str) -> str:
        """Return the name of a model of a dialect, one that reasons."""
        return MODELS[dialect]


@contextmanager
def running_aimock() -> Generator[Aimock]:
    """Start aimock on a free port; end that process, and no other, at the end."""
    node = shutil.which("node")
    if node is None or not CLI.is_file():
        reason = "aimock is not here: it takes node, and `make deps` with npm"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    with tempfile.TemporaryDirectory() as scratch:
        said = Path(scratch, "fixtures.json")
        said.write_text(json.dumps(fixtures()), encoding="utf-8")
        command = [node, str(CLI), "--port", "0", "--fixtures", str(said), "--validate-on-load", "--strict"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
            assert process.stdout is not None
            lines: list[str] = []
            rest = threading.Thread(target=lines.extend, args=(process.stdout,), daemon=True)
            try:
                port = _port(process, lines)
                rest.start()  # what nobody reads would block it in the end
                yield Aimock(port)
            finally:
                process.kill()
                if rest.ident is not None:
                    rest.join()


def _port(process: "subprocess.Popen[str]", lines: list[str]) -> int:
    """Read what it says until it names its port; one that says nothing for too long is ended, and so says its last."""
    assert process.stdout is not None
    timer = threading.Timer(START_SECONDS_MAX, process.kill)
    timer.start()
    try:
        for line in process.stdout:
            lines.append(line)
            if match := re.search(r"listening on http://[^:\s]+:(\d+)", line):
                return int(match[1])
    finally:
        timer.cancel()
    msg = f"aimock did not start:\n{''.join(lines)}"
    raise RuntimeError(msg)


@pytest.fixture(scope="session", name="aimock")
def aimock_fixture() -> Iterator[Aimock]:
    """A running aimock, one for the session."""
    with running_aimock() as server:
        yield server


# The end of one server-sent event and of the HTTP chunk that carries it: aimock writes each event as one chunk.
_EVENT_END = b"\n\n\r\n"
_LAST_CHUNK = b"0\r\n\r\n"

How = Literal["end", "reset", "stall"]


@dataclass(slots=True)
class Connection:
    """One connection of an engine to the relay. `closed` is set when the engine has closed its side."""

    closed: asyncio.Event = field(default_factory=asyncio.Event)
    sent: bytearray = field(default_factory=bytearray)
    event_count: int = 0
    _more_sent: asyncio.Event = field(default_factory=asyncio.Event)

    def take(self, data: bytes) -> None:
        """Take what the engine sent."""
        self.sent += data
        self._more_sent.set()

    async def wait_sent(self, text: str) -> None:
        """Return once the engine has sent a text."""
        while text.encode() not in self.sent:
            self._more_sent.clear()
            await self._more_sent.wait()

    @property
    def bodies(self) -> list[dict[str, Any]]:
        """The JSON bodies of the requests that the engine made on this connection."""
        bodies: list[dict[str, Any]] = []
        rest = bytes(self.sent)
        while rest:
            head, _, rest = rest.partition(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", head.lower())
            size = int(length[1]) if length else 0
            bodies.append(json.loads(rest[:size]))
            rest = rest[size:]
        return bodies


@dataclass(slots=True)
class Relay:
    """A TCP relay in front of aimock.

    After `events_max` events of a response it does what `how` says: `end` ends the response as HTTP wants it, `reset`
    breaks the connection, `stall` goes silent. None: it relays everything.
    """

    port: int
    events_max: int | None = None
    how: How = "reset"
    connections: list[Connection] = field(default_factory=list[Connection])
    _more_sent: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def bodies(self) -> list[dict[str, Any]]:
        """The JSON bodies of all requests, in order where one follows the other."""
        return [body for connection in self.connections for body in connection.bodies]

    async def wait_carrier(self, text: str) -> Connection:
        """Return the first connection by which a text was sent, once it was."""
        while not (carriers := [each for each in self.connections if text.encode() in each.sent]):
            self._more_sent.clear()
            await self._more_sent.wait()
        return carriers[0]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Relay one connection."""
        connection = Connection()
        self.connections.append(connection)
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:  # nobody is there, and whoever asks is to know
            writer.close()
            return
        down = asyncio.create_task(self._relay_answers(up_reader, writer, connection))
        try:
            while data := await reader.read(65_536):
                connection.take(data)
                self._more_sent.set()
                up_writer.write(data)
                await up_writer.drain()
        except ConnectionError:
            pass
        finally:
            connection.closed.set()
            down.cancel()
            up_writer.close()
            writer.close()
            await asyncio.wait([down])

    async def _relay_answers(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: Connection
    ) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65_536):
                for piece in re.split(b"(?<=" + re.escape(_EVENT_END) + b")", data):
                    writer.write(piece)
                    connection.event_count += piece.endswith(_EVENT_END)
                    if self.events_max is not None and connection.event_count >= self.events_max:
                        await self._stop(writer)
                        return
                await writer.drain()
        writer.close()

    async def _stop(self, writer: asyncio.StreamWriter) -> None:
        match self.how:
            case "end":
                writer.write(_LAST_CHUNK)
                await writer.drain()
                writer.close()
            case "reset":
                await writer.drain()
                writer.transport.abort()
            case "stall":
                await writer.drain()


@asynccontextmanager
async def relay_to(
    aimock: Aimock, events_max: int | None = None, how: How = "reset"
) -> AsyncGenerator[tuple[Relay, int]]:
    """Start a relay to aimock; the number is its port."""
    relay = Relay(aimock.port, events_max, how)
    serving: set[asyncio.Task[None]] = set()

    def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(asyncio.create_task(relay.serve(reader, writer)))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield relay, server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)
        await server.wait_closed()

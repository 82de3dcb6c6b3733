"""The pydantic_ai engine against a provider API server that nobody here wrote, in all four dialects.

Where that server cannot misbehave as a test needs it, a relay in front of it does; the provider is real in every test.
"""

import asyncio
import base64
import json
import socket
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field, replace

import pytest

from support import aimock as mock
from support.aimock import Aimock, How, Relay, aimock_fixture, relay_to  # noqa: F401
from turnwire_server.domain.errors import (
    ContentRefusedError,
    EngineError,
    EngineRateLimitedError,
    EngineRejectedError,
    EngineStalledError,
    EngineStreamBrokenError,
    EngineUnauthenticatedError,
    EngineUnavailableError,
)
from turnwire_server.domain.inference import FinishClass, InferenceConfig, Usage
from turnwire_server.domain.tool import Tool, ToolCall, ToolUse
from turnwire_server.domain.turn import Block, BlockKind, Image, LlmText, Reasoning, System, User
from turnwire_server.engines.base import EngineCall, EngineChunk, EngineResult, PartDelta, PartEnd, PartKind, PartStart
from turnwire_server.engines.pydantic_ai import PydanticAIEngine

CITY = '{"type":"object","properties":{"city":{"type":"string"}},"required":["city"]}'
WEATHER = Tool(mock.TOOL_NAME, "Tells the weather.", CITY)
TIME = Tool(mock.SECOND_TOOL_NAME)


@dataclass(slots=True)
class Said:
    """What came out of one call."""

    result: EngineResult
    chunks: list[EngineChunk]

    def text(self, kind: PartKind = PartKind.TEXT) -> str:
        """All text of one kind."""
        numbers = {each.part for each in self.starts if each.kind is kind}
        return "".join(each.delta for each in self.chunks if isinstance(each, PartDelta) and each.part in numbers)

    @property
    def starts(self) -> list[PartStart]:
        """The parts."""
        return [each for each in self.chunks if isinstance(each, PartStart)]

    @property
    def blocks(self) -> list[BlockKind]:
        """The output as the runtime would keep it."""
        kinds: list[BlockKind] = []
        ends = {each.part: each for each in self.chunks if isinstance(each, PartEnd)}
        for start in self.starts:
            text = "".join(c.delta for c in self.chunks if isinstance(c, PartDelta) and c.part == start.part)
            end = ends[start.part]
            match start.kind:
                case PartKind.TEXT:
                    kinds.append(LlmText(text))
                case PartKind.THINKING:
                    kinds.append(Reasoning(text, end.summary, end.encrypted_content, end.signature, end.item))
                case PartKind.TOOL_CALL:
                    kinds.append(ToolCall(start.id or "minted", start.name, text))
        return kinds


@dataclass(slots=True)
class Talk:
    """An engine that talks to aimock in one dialect, through a relay."""

    dialect: str
    aimock: Aimock
    relay: Relay
    port: int
    engine: PydanticAIEngine = field(default_factory=PydanticAIEngine)
    options: dict[str, object] = field(default_factory=dict[str, object])

    def call(
        self, *kinds: BlockKind, config: InferenceConfig | None = None, tools: tuple[Tool, ...] = (), schema: str = ""
    ) -> EngineCall:
        """Return a call; its config is completed with the dialect's model."""
        return EngineCall(
            "session",
            "inference",
            1,
            tuple(Block(f"b{number}", kind) for number, kind in enumerate(kinds)),
            replace(config or InferenceConfig(), model=self.aimock.model(self.dialect)),
            tools,
            schema,
            options={**self.aimock.options(self.dialect, self.port), "idle_seconds_max": 10, **self.options},
        )

    async def say(
        self, *kinds: BlockKind, config: InferenceConfig | None = None, tools: tuple[Tool, ...] = (), schema: str = ""
    ) -> Said:
        """Make a call that succeeds."""
        chunks: list[EngineChunk] = []
        return Said(await self.run(self.call(*kinds, config=config, tools=tools, schema=schema), chunks), chunks)

    async def run(self, call: EngineCall, chunks: list[EngineChunk]) -> EngineResult:
        """Make a call, keeping the chunks."""

        async def emit(chunk: EngineChunk) -> None:
            chunks.append(chunk)

        return await self.engine.run(call, emit)

    async def fail(self, text: str) -> EngineError:
        """Make a call that fails; the engine works right after it."""
        with pytest.raises(EngineError) as caught:
            await self.say(User(text))
        self.relay.events_max = None
        assert (await self.say(User(mock.PLAIN))).text() == mock.PLAIN_TEXT
        return caught.value

    @property
    def body(self) -> dict[str, object]:
        """What the newest request said."""
        return self.relay.connections[-1].bodies[-1]


@pytest.fixture(params=mock.DIALECTS)
async def talk(request: pytest.FixtureRequest, aimock: Aimock) -> AsyncGenerator[Talk]:
    async with relay_to(aimock) as (relay, port):
        talk = Talk(request.param, aimock, relay, port)
        yield talk
        await talk.engine.aclose()


async def test_text(talk: Talk) -> None:
    said = await talk.say(System("Be brief."), User(mock.PLAIN))
    assert said.text() == mock.PLAIN_TEXT
    assert sum(isinstance(chunk, PartDelta) for chunk in said.chunks) > 5
    assert said.result.finish_class is FinishClass.COMPLETED
    assert said.result.usage == Usage(input_tokens=11, output_tokens=7)
    assert said.result.model == talk.aimock.model(talk.dialect)
    assert said.result.stop_reason in {"stop", "completed", "end_turn", "STOP"}
    assert "Be brief." in json.dumps(talk.body)


async def test_connections_are_kept(talk: Talk) -> None:
    for _ in range(3):
        await talk.say(User(mock.PLAIN))
    assert len(talk.relay.connections) == 1


async def test_thinking_goes_back_to_its_provider(talk: Talk) -> None:
    said = await talk.say(User(mock.THINKING), config=InferenceConfig(reasoning_effort="low"))
    assert said.text(PartKind.THINKING) == mock.THOUGHT
    assert said.text() == mock.THINKING_TEXT
    assert [start.kind for start in said.starts] == [PartKind.THINKING, PartKind.TEXT]
    reasoning = said.blocks[0]
    assert isinstance(reasoning, Reasoning)
    await talk.say(User(mock.THINKING), *said.blocks, User(mock.PLAIN))
    sent = json.dumps(talk.body)
    match talk.dialect:
        case "anthropic":
            assert reasoning.signature == mock.SIGNATURE
            assert mock.SIGNATURE in sent
        case "openai-responses":
            assert reasoning.encrypted_content
            assert reasoning.item
            assert reasoning.encrypted_content in sent
        case "openai-chat":
            assert reasoning.item == "reasoning_content"
        case _:
            # aimock signs no thoughts in Gemini's dialect; without a signature they do not go back.
            assert mock.THOUGHT not in sent


async def test_reasoning_of_another_provider_stays_here(talk: Talk) -> None:
    foreign = {
        "anthropic": Reasoning("secret thought", encrypted_content="c2VhbGVk", item="rs_1"),
        "openai-responses": Reasoning("secret thought", signature="c2lnbmVk"),
        "openai-chat": Reasoning("secret thought", signature="c2lnbmVk"),
        "google": Reasoning("secret thought", signature="c2lnbmVk"),
    }
    await talk.say(User("hello"), foreign[talk.dialect], LlmText("hi"), User(mock.PLAIN))
    sent = json.dumps(talk.body)
    assert "secret thought" not in sent
    assert "c2" not in sent


async def test_tool_call_and_its_result(talk: Talk) -> None:
    said = await talk.say(User(mock.TOOL), tools=(WEATHER,))
    (call,) = [block for block in said.blocks if isinstance(block, ToolCall)]
    assert (call.name, json.loads(call.args)) == (mock.TOOL_NAME, mock.TOOL_ARGS)
    assert call.id == mock.TOOL_ID
    assert said.result.finish_class is FinishClass.TOOL_CALLS_PENDING
    answer = ToolUse(call.id, '{"weather": "sunny"}')
    said = await talk.say(User(mock.TOOL), *said.blocks, answer, tools=(WEATHER,))
    assert said.text() == mock.TOOL_RESULT_TEXT
    assert said.result.finish_class is FinishClass.COMPLETED


async def test_two_tool_calls_at_once(talk: Talk) -> None:
    said = await talk.say(User(mock.TOOLS), tools=(WEATHER, TIME))
    calls = [block for block in said.blocks if isinstance(block, ToolCall)]
    assert [(call.name, json.loads(call.args)) for call in calls] == [
        (mock.TOOL_NAME, mock.TOOL_ARGS),
        (mock.SECOND_TOOL_NAME, mock.SECOND_TOOL_ARGS),
    ]
    assert said.text() == mock.TOOLS_TEXT


async def test_the_same_call_id_in_two_inferences(talk: Talk) -> None:
    """Ids name calls within one turn, so a session has `call_1` many times; a request must not."""
    again = (ToolCall("call_1", mock.TOOL_NAME, "{}"), ToolUse("call_1", '"sunny"'), LlmText("Sunny."))
    said = await talk.say(User("first"), *again, User("second"), *again, User(mock.PLAIN), tools=(WEATHER,))
    assert said.text() == mock.PLAIN_TEXT
    if talk.dialect != "google":
        assert "call_1_2" in json.dumps(talk.body)


async def test_output_that_is_cut_at_the_limit(talk: Talk) -> None:
    said = await talk.say(User(mock.LONG), config=InferenceConfig(max_output_tokens=2048))
    assert said.text() == mock.LONG_TEXT
    assert said.result.finish_class is FinishClass.MAX_TOKENS
    assert "2048" in json.dumps(talk.body)


async def test_configuration_reaches_the_provider(talk: Talk) -> None:
    config = InferenceConfig(
        max_output_tokens=77,
        stop_sequences=("HALT",),
        seed=4711,
        # Claude refuses to be forced.
        tool_choice="auto" if talk.dialect == "anthropic" else mock.TOOL_NAME,
        parallel_tool_calls=False,
    )
    schema = '{"type":"object","properties":{"answer":{"type":"string"}},"required":["answer"]}'
    await talk.say(User(mock.PLAIN), config=config, tools=(WEATHER, TIME), schema=schema)
    sent = json.dumps(talk.body)
    assert "77" in sent
    assert ("HALT" in sent) == (talk.dialect != "openai-responses")
    assert ("4711" in sent) == (talk.dialect in {"openai-chat", "google"})
    assert mock.TOOL_NAME in sent
    assert mock.SECOND_TOOL_NAME in sent
    # Gemini before 3 takes tools or a schema, not both.
    assert ("answer" in sent) == (talk.dialect != "google")
    assert ("parallel" in sent) == (talk.dialect != "google")


async def test_output_schema_reaches_the_provider(talk: Talk) -> None:
    schema = '{"type":"object","properties":{"answer":{"type":"string"}},"required":["answer"]}'
    await talk.say(User(mock.PLAIN), schema=schema)
    assert "answer" in json.dumps(talk.body)


async def test_images_reach_the_provider(talk: Talk) -> None:
    picture = Image(content=b"\x89PNG picture", media_type="image/png")
    await talk.say(User(mock.PLAIN, (picture,)))
    assert base64.b64encode(picture.content).decode() in json.dumps(talk.body)


async def test_refusal(talk: Talk) -> None:
    # In Responses' dialect aimock says "failed" where OpenAI says "content_filter".
    refused = EngineUnavailableError if talk.dialect == "openai-responses" else ContentRefusedError
    assert type(await talk.fail(mock.REFUSED)) is refused


async def test_stream_that_breaks_off(talk: Talk) -> None:
    error = await talk.fail(mock.BROKEN)
    assert type(error) is EngineStreamBrokenError
    assert error.metadata == {"engine": "pydantic_ai"}


@pytest.mark.parametrize("how", ["end", "reset"])
@pytest.mark.parametrize("events_max", [3, 8])
async def test_stream_that_is_cut(talk: Talk, how: How, events_max: int) -> None:
    """`end` is the hard one: connection and HTTP are fine, and only the dialect knows that something is missing."""
    talk.relay.events_max, talk.relay.how = events_max, how
    chunks: list[EngineChunk] = []
    with pytest.raises(EngineStreamBrokenError):
        await talk.run(talk.call(User(mock.SLOW)), chunks)
    said = "".join(chunk.delta for chunk in chunks if isinstance(chunk, PartDelta))
    assert mock.SLOW_TEXT.startswith(said)
    talk.relay.events_max = None
    assert (await talk.say(User(mock.PLAIN))).text() == mock.PLAIN_TEXT


@pytest.mark.parametrize(
    ("text", "error", "status"),
    [
        (mock.LIMITED, EngineRateLimitedError, "429"),
        (mock.FAILING, EngineUnavailableError, "500"),
        (mock.UNAUTHENTICATED, EngineUnauthenticatedError, "401"),
        (mock.REJECTED, EngineRejectedError, "400"),
    ],
)
async def test_http_errors(
    talk: Talk, text: str, error: type[EngineError], status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_AIMOCK_KEY", mock.KEY)
    talk.options["api_key_env"] = "TEST_AIMOCK_KEY"
    caught = await talk.fail(text)
    assert type(caught) is error
    assert caught.metadata == {"engine": "pydantic_ai", "http_status": status}
    assert mock.KEY[:-3] not in str(caught)
    assert mock.KEY.encode() in bytes(talk.relay.connections[0].sent)
    bodies = [body for connection in talk.relay.connections for body in connection.bodies]
    assert sum(text in json.dumps(body) for body in bodies) == 1, "the call was repeated"


async def test_no_key_goes_to_a_server_of_ones_own(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "GOOGLE_API_KEY", "GEMINI_API_KEY"):
        monkeypatch.setenv(name, mock.KEY)
    await talk.say(User(mock.PLAIN))
    assert mock.KEY.encode() not in bytes(talk.relay.connections[0].sent)


async def test_nobody_there(talk: Talk) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        call = replace(talk.call(User(mock.PLAIN)), options=talk.aimock.options(talk.dialect, taken.getsockname()[1]))
        with pytest.raises(EngineUnavailableError) as caught:
            await talk.run(call, [])
    assert caught.value.metadata["http_status"] == "none"


@pytest.mark.parametrize("events_max", [0, 4])
async def test_silence(talk: Talk, events_max: int) -> None:
    await talk.say(User(mock.PLAIN))
    talk.options["idle_seconds_max"] = 0.4
    talk.relay.connections[0].event_count = 0
    talk.relay.events_max, talk.relay.how = events_max, "stall"
    error = await talk.fail(mock.SLOW)
    assert type(error) is EngineStalledError
    assert error.metadata == {"engine": "pydantic_ai", "idle_seconds_max": "0.4"}
    await asyncio.wait_for(talk.relay.connections[0].closed.wait(), 1)


@pytest.mark.parametrize("text", [mock.SLOW, mock.HANGING])
async def test_cancel_closes_the_connection(talk: Talk, text: str) -> None:
    await talk.say(User(mock.PLAIN))
    seconds: list[float] = []
    for _ in range(3):
        connection = talk.relay.connections[-1]
        emitted = asyncio.Event()

        async def emit(_: EngineChunk, emitted: asyncio.Event = emitted) -> None:
            emitted.set()

        task = asyncio.create_task(talk.engine.run(talk.call(User(text)), emit))
        async with asyncio.timeout(10):
            await (emitted.wait() if text == mock.SLOW else connection.wait_sent(text))
        assert not connection.closed.is_set()
        began = time.monotonic()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(connection.closed.wait(), 1)
        seconds.append(time.monotonic() - began)
        assert (await talk.say(User(mock.PLAIN))).text() == mock.PLAIN_TEXT
    assert min(seconds) < 0.1

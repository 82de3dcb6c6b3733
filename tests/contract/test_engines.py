"""Every engine, through the one suite."""

from collections.abc import AsyncGenerator, Mapping

import pytest

pytest.register_assert_rewrite("contract.engine_suite")

from contract.engine_suite import EngineSuite, Subject  # noqa: E402
from support import aimock as mock  # noqa: E402
from support.aimock import Aimock, aimock_fixture, relay_to  # noqa: E402, F401
from turnwire_server.domain.inference import InferenceConfig  # noqa: E402
from turnwire_server.domain.tool import Tool  # noqa: E402
from turnwire_server.domain.turn import Block, User  # noqa: E402
from turnwire_server.engines.base import EngineCall  # noqa: E402
from turnwire_server.engines.pydantic_ai import PydanticAIEngine  # noqa: E402
from turnwire_server.engines.scripted import ScriptedEngine  # noqa: E402

TEXT = "Grüße, 世界, 🦊."


def scripted(*steps: Mapping[str, object], **script: object) -> EngineCall:
    """A call of the scripted engine."""
    written = {"calls": [{"steps": list(steps)}], "delta_length": 3, **script}
    return EngineCall("session", "inference", 1, (Block("b", User("hello")),), options={"script": written})


class TestScripted(EngineSuite):
    @pytest.fixture
    def subject(self) -> Subject:
        text = {"text": {"text": TEXT}}
        calls = {
            "text": scripted(text),
            "thinking": scripted({"thinking": {"text": "Let me think."}}, text),
            "tools": scripted(
                {"tool_call": {"name": "one", "args": '{"a": 1}'}},
                {"tool_call": {"name": "two"}},
            ),
            "slow": scripted({"text": {"text": TEXT, "repeat": 1000}}, pace="0.01s"),
            "hang": scripted({"hang": {}}),
            "failure": scripted(text, {"fail": {"reason": "ENGINE_STALLED"}}),
        }
        return Subject(ScriptedEngine(), calls, TEXT)


class TestPydanticAI(EngineSuite):
    @pytest.fixture(params=mock.DIALECTS)
    async def subject(self, request: pytest.FixtureRequest, aimock: Aimock) -> AsyncGenerator[Subject]:
        dialect: str = request.param
        engine = PydanticAIEngine()
        tools = (Tool(mock.TOOL_NAME), Tool(mock.SECOND_TOOL_NAME))
        async with relay_to(aimock) as (relay, port):

            def say(text: str, effort: str = "") -> EngineCall:
                return EngineCall(
                    "session",
                    "inference",
                    1,
                    (Block("b", User(text)),),
                    InferenceConfig(model=aimock.model(dialect), reasoning_effort=effort),
                    tools if text == mock.TOOLS else (),
                    options=aimock.options(dialect, port),
                )

            async def wait_closed() -> None:
                if relay.connections:
                    await relay.connections[-1].closed.wait()

            calls = {
                "text": say(mock.PLAIN),
                "thinking": say(mock.THINKING, effort="low"),
                "tools": say(mock.TOOLS),
                "slow": say(mock.SLOW),
                "hang": say(mock.HANGING),
                "failure": say(mock.FAILING),
            }
            yield Subject(engine, calls, mock.PLAIN_TEXT, wait_closed)
            await engine.aclose()

"""A real server whose profiles lead to aimock, in each dialect through a relay that sees what the provider is asked.

What a request says is in other places in each dialect; `Asked` finds it.
"""

import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.aimock import DIALECTS, Aimock, Relay, relay_to
from support.live import LiveServer, Session
from support.workshop import Workshop


@dataclass(frozen=True, slots=True)
class Asked:
    """One request to a provider."""

    dialect: str
    body: Mapping[str, Any]

    @property
    def text(self) -> str:
        """All of it."""
        return json.dumps(self.body, ensure_ascii=False)

    @property
    def tools(self) -> dict[str, Mapping[str, Any]]:
        """The tools that are offered: the JSON Schema of each."""
        offered: list[Mapping[str, Any]] = self.body.get("tools", [])
        match self.dialect:
            case "openai-chat":
                return {each["function"]["name"]: each["function"]["parameters"] for each in offered}
            case "openai-responses":
                return {each["name"]: each["parameters"] for each in offered}
            case "anthropic":
                return {each["name"]: each["input_schema"] for each in offered}
            case _:
                declared = [each for group in offered for each in group["functionDeclarations"]]
                return {each["name"]: each["parameters_json_schema"] for each in declared}

    @property
    def calls(self) -> list[tuple[str, Mapping[str, Any]]]:
        """The tool calls in it: name and arguments."""
        match self.dialect:
            case "openai-chat":
                calls = [
                    each["function"] for message in self.body["messages"] for each in message.get("tool_calls", ())
                ]
                return [(each["name"], json.loads(each["arguments"])) for each in calls]
            case "openai-responses":
                calls = [each for each in self.body["input"] if each.get("type") == "function_call"]
                return [(each["name"], json.loads(each["arguments"])) for each in calls]
            case "anthropic":
                return [(each["name"], each["input"]) for each in self.contents("messages", "tool_use")]
            case _:
                calls = [part["functionCall"] for part in self._parts() if "functionCall" in part]
                return [(each["name"], each["args"]) for each in calls]

    @property
    def results(self) -> list[str]:
        """What came of tool calls, as text, in order."""
        match self.dialect:
            case "openai-chat":
                return [message["content"] for message in self.body["messages"] if message["role"] == "tool"]
            case "openai-responses":
                return [each["output"] for each in self.body["input"] if each.get("type") == "function_call_output"]
            case "anthropic":
                results = self.contents("messages", "tool_result")
                return [
                    each["content"] if isinstance(each["content"], str) else each["content"][0]["text"]
                    for each in results
                ]
            case _:
                return [
                    json.dumps(part["functionResponse"]["response"], ensure_ascii=False)
                    for part in self._parts()
                    if "functionResponse" in part
                ]

    def contents(self, field: str, kind: str) -> list[Mapping[str, Any]]:
        """Return the pieces of one kind in Anthropic's messages."""
        lists = [message["content"] for message in self.body[field] if isinstance(message["content"], list)]
        return [each for contents in lists for each in contents if each.get("type") == kind]

    def _parts(self) -> list[Mapping[str, Any]]:
        return [part for content in self.body["contents"] for part in content["parts"]]


class Provided:
    """The server, and what sees its requests. Profiles: `DIALECT`, which has no tools, and `DIALECT-tools`."""

    def __init__(self, aimock: Aimock, server: LiveServer, relays: Mapping[str, Relay]) -> None:
        self.aimock = aimock
        self.server = server
        self.relays = relays

    def asked(self, dialect: str) -> list[Asked]:
        """Return what the provider was asked in a dialect, in order."""
        return [Asked(dialect, body) for body in self.relays[dialect].bodies]

    async def desk(self, dialect: str, kind: str = "") -> "Desk":
        """Create a session."""
        session = await self.server.session(f"{dialect}-{kind}" if kind else dialect)
        return Desk(self, dialect, session, len(self.asked(dialect)))


@dataclass(slots=True)
class Desk:
    """One session, and what the provider was asked since it was created."""

    provided: Provided
    dialect: str
    session: Session
    skipped: int

    @property
    def asked(self) -> list[Asked]:
        """What the provider was asked."""
        return self.provided.asked(self.dialect)[self.skipped :]


def provider_profiles(aimock: Aimock, ports: Mapping[str, int]) -> dict[str, dict[str, object]]:
    """Return profiles for each dialect."""
    profiles: dict[str, dict[str, object]] = {}
    for dialect, port in ports.items():
        base: dict[str, object] = {
            "engine": "pydantic_ai",
            "model": aimock.model(dialect),
            "engine_options": aimock.options(dialect, port),
        }
        profiles[dialect] = base
        profiles[f"{dialect}-tools"] = {**base, "tools": [{"python": "support.gadgets"}]}
        profiles[f"{dialect}-approved"] = {
            **base,
            "tools": [{"python": {"module": "support.gadgets", "only": ["get_weather", "get_time"]}}],
            "tool_policy": {"approve": ["get_weather"]},
        }
        profiles[f"{dialect}-blind"] = {**base, "capabilities": {"images": False}}
    return profiles


@asynccontextmanager
async def provided(aimock: Aimock, folder: Path, shop: Workshop) -> AsyncGenerator[Provided]:
    """Start a server that asks aimock."""
    async with AsyncExitStack() as stack:
        relays: dict[str, Relay] = {}
        ports: dict[str, int] = {}
        for dialect in DIALECTS:
            relays[dialect], ports[dialect] = await stack.enter_async_context(
                relay_to(aimock, signs_calls=dialect == "google")
            )
        server = LiveServer(folder, provider_profiles(aimock, ports), environment=shop.environment)
        await stack.enter_async_context(server)
        yield Provided(aimock, server, relays)

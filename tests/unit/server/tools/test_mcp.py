"""What of MCP needs no server: settings and their secrets, names, and what comes of a call."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from mcp import MCPError
from mcp_types import INVALID_PARAMS, CallToolResult, ImageContent, TextContent

from turnwire_server.domain.profile import ToolSourceUse
from turnwire_server.runtime.clock import SystemClock
from turnwire_server.tools.base import ToolFailure
from turnwire_server.tools.mcp import McpToolSource, offered_name
from turnwire_server.tools.mcp_connection import CallLost, Unreachable
from turnwire_server.tools.mcp_outcome import to_failure, to_text
from turnwire_server.tools.mcp_settings import HttpSettings, Secrets, StdioSettings, read_settings
from turnwire_server.tools.python import PythonToolSource
from turnwire_server.tools.sources import open_sources

ENVIRONMENT = {"TOKEN": "hunter2-hunter2", "SHORT": "abc"}
STDIO: Mapping[str, object] = {"name": "files", "command": ["server", "--all"]}
HTTP: Mapping[str, object] = {"name": "web", "url": "https://host.invalid/mcp"}


def test_variables_are_filled_in_and_are_secrets() -> None:
    env = {"KEY": "${TOKEN}", "MIXED": "a-${TOKEN}-${SHORT}", "PLAIN": "literal-key", "FLAG": "1", "DOLLAR": "$TOKEN"}
    settings, secrets = read_settings({**STDIO, "env": env}, ENVIRONMENT)
    assert isinstance(settings, StdioSettings)
    assert settings.env == {
        "KEY": "hunter2-hunter2",
        "MIXED": "a-hunter2-hunter2-abc",
        "PLAIN": "literal-key",
        "FLAG": "1",
        "DOLLAR": "$TOKEN",
    }
    assert secrets.mask("hunter2-hunter2, a-hunter2-hunter2-abc, literal-key, 1") == "***, ***, ***, 1"
    assert "hunter2" not in repr(settings) + str(settings) + repr(secrets)


def test_what_a_url_has_besides_the_place_is_a_secret() -> None:
    url = "https://user:passw0rd@host.invalid/mcp?key=abcdef123"
    settings, secrets = read_settings({"name": "web", "url": url, "headers": {"X": "Bearer ${TOKEN}"}}, ENVIRONMENT)
    assert isinstance(settings, HttpSettings)
    assert settings.headers == {"X": "Bearer hunter2-hunter2"}
    assert secrets.mask(f"at {url} with {ENVIRONMENT['TOKEN']}") == "at https://***@host.invalid/mcp?*** with ***"
    shown = repr(settings) + repr(McpToolSource({"name": "web", "url": url}, {}, SystemClock()))
    assert "passw0rd" not in shown
    assert "abcdef123" not in shown


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"name": "x"}, "the settings of the MCP server x: have either `command`"),
        ({**STDIO, **HTTP}, "have either `command`"),
        ({"command": ["a"]}, "name: Field required"),
        ({**STDIO, "command": []}, "command: Tuple should have at least 1 item"),
        ({**STDIO, "command": "server --all"}, "command: Input should be a valid tuple"),
        ({**STDIO, "headers": {}}, "headers: Extra inputs are not permitted"),
        ({**HTTP, "env": {}}, "env: Extra inputs are not permitted"),
        ({**HTTP, "url": "host.invalid"}, "url: String should match pattern"),
        ({**STDIO, "prefix": "a b"}, "prefix: String should match pattern"),
        ({**STDIO, "connect_seconds_max": 0}, "connect_seconds_max: Input should be greater than 0"),
        ({**STDIO, "env": {"A": "${MISSING}"}}, "env.A needs the environment variable MISSING, which is not set"),
        ({**HTTP, "headers": {"A": "x ${MISSING}"}}, "headers.A needs the environment variable MISSING"),
        ({**STDIO, "env": {"A": ["hunter2"]}}, "env.A: Input should be a valid string"),
    ],
)
def test_what_is_wrong_with_settings_is_said_without_their_values(settings: Mapping[str, object], said: str) -> None:
    with pytest.raises(ValueError, match="the settings of the MCP server") as refused:
        read_settings(settings, ENVIRONMENT)
    assert said in str(refused.value)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "offered"),
    [
        ("get_time", "get_time"),
        ("files.read/all", "files_read_all"),
        ("größe", "gr__e"),
        ("x" * 64, "x" * 64),
        ("x" * 65, "x" * 55 + "_9537c5fd"),
    ],
)
def test_a_name_becomes_one_of_the_contract(name: str, offered: str) -> None:
    assert offered_name(name) == offered


def text(said: str) -> TextContent:
    return TextContent(type="text", text=said)


IMAGE = ImageContent(type="image", data="aGk=", mime_type="image/png")


@pytest.mark.parametrize(
    ("result", "json_text"),
    [
        (CallToolResult(content=[text("é")]), '"é"'),
        (CallToolResult(content=[text("a"), text("b")]), '"a\\nb"'),
        (CallToolResult(content=[]), '""'),
        (CallToolResult(content=[text("a")], structured_content={"b": [1.0]}), '{"b":[1.0]}'),
        (
            CallToolResult(content=[text("a"), IMAGE]),
            '[{"type":"text","text":"a"},{"type":"image","data":"aGk=","mimeType":"image/png"}]',
        ),
    ],
)
def test_a_result_is_the_structured_content_or_the_text_or_all_contents(result: CallToolResult, json_text: str) -> None:
    assert to_text(result) == json_text


@pytest.mark.parametrize(
    ("content", "said"), [([text("no")], "no"), ([IMAGE], "does not say why"), ([], "does not say")]
)
def test_a_result_that_is_an_error_is_a_failure(content: list[Any], said: str) -> None:
    with pytest.raises(ToolFailure, match=said) as failed:
        to_text(CallToolResult(content=content, is_error=True))
    assert failed.value.code == "failed"


@pytest.mark.parametrize(
    ("error", "code", "said", "may_repeat"),
    [
        (Unreachable("why"), "unavailable", "the MCP server web is unavailable: why", True),
        (CallLost(), "unknown_outcome", "lost during the call", False),
        (MCPError(INVALID_PARAMS, "no city"), "invalid_args", "no city", False),
        (MCPError(-32000, "for hunter2"), "failed", "for ***", False),
        (MCPError(-32000, ""), "failed", "the MCP server failed", False),
        (RuntimeError("hunter2"), "crashed", "the tool crashed", False),
        (ToolFailure("mine, hunter2", "own"), "own", "mine, ***", False),
    ],
)
def test_an_error_of_a_call_is_a_failure(error: Exception, code: str, said: str, may_repeat: bool) -> None:
    failure = to_failure(error, "web", Secrets(("hunter2",)))
    assert (failure.code, failure.may_repeat) == (code, may_repeat)
    assert said in failure.message
    assert "hunter2" not in failure.message


def test_sources_are_made_in_the_order_of_the_profile() -> None:
    uses = [
        ToolSourceUse("mcp", STDIO),
        ToolSourceUse("python", {"module": "unit_tools_of_nobody"}),
    ]
    with pytest.raises(ValueError, match="cannot import unit_tools_of_nobody"):
        open_sources(uses, {}, SystemClock())
    made = open_sources([ToolSourceUse("mcp", HTTP), uses[0]], {}, SystemClock())
    assert [source.name for source in made] == ["web", "files"]
    assert not any(isinstance(source, PythonToolSource) for source in made)


def test_a_kind_that_nobody_knows_is_refused() -> None:
    with pytest.raises(ValueError, match="no tools of the kind 'openapi', only of python and mcp"):
        open_sources([ToolSourceUse("openapi")], {}, SystemClock())


async def test_a_source_that_was_never_used_is_closed() -> None:
    source = McpToolSource(STDIO, {}, SystemClock())
    await source.aclose()
    assert len(asyncio.all_tasks()) == 1

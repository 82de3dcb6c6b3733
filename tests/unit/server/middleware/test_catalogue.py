"""The names of middleware in a profile."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from turnwire_server.domain.profile import MiddlewareUse
from turnwire_server.middleware.catalogue import CATALOGUE, build_middleware
from turnwire_server.runtime.clock import SystemClock
from unit.server.middleware.stage import Play, engine_call

HERE = "unit.server.middleware.third_party"


def use(name: str, /, **settings: object) -> MiddlewareUse:
    return MiddlewareUse(name, settings)


def every_use(path: Path) -> list[MiddlewareUse]:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE t (x)")
    return [
        use("agent_mode", default="a", modes={"a": {"prompt": "A", "allowed_tools": ["t"]}}),
        use("log_calls"),
        use("sql_tool", path=str(path)),
        use("system_prompt", text="be kind"),
        use("thinking_mode"),
        use("tool_result_reorder"),
    ]


async def test_every_name_builds_what_is_called_so(tmp_path: Path) -> None:
    uses = every_use(tmp_path / "a.db")
    built = build_middleware(uses, SystemClock())
    assert [each.name for each in built] == [each.name for each in uses] == sorted(CATALOGUE)
    play = Play()
    await play.run(built, engine_call())
    assert play.text == "hello"
    for each in built:
        await each.aclose()


def test_nothing_is_built_of_nothing() -> None:
    assert build_middleware([], SystemClock()) == ()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (use("nope"), r"middleware nope: it is none of agent_mode, .*"),
        (use("system_prompt"), r"middleware system_prompt: text: Field required"),
        (use("system_prompt", text="x", more=1), r"middleware system_prompt: more: Extra inputs are not permitted"),
        (use("log_calls", level="loud"), r"middleware log_calls: level: Input should be .*"),
        (use("tool_result_reorder", x=1), r"middleware tool_result_reorder: x: Extra .*"),
        (use("thinking_mode", x=1), r"middleware thinking_mode: x: Extra .*"),
        (use("sql_tool", path="/nowhere/a.db"), r"middleware sql_tool: path: there is no file /nowhere/a\.db"),
        (use("sql_tool", path="a.db", rows_max=0, name="a b"), r"middleware sql_tool: name: .*; rows_max: .*"),
        (use("agent_mode", default="a", modes={}), r"middleware agent_mode: modes: .*"),
        (
            use("agent_mode", default="b", modes={"a": {"prompt": ""}}),
            r"middleware agent_mode: settings: .*default 'b' is none of the modes a",
        ),
        (use("agent_mode", default="a", modes={"a": {}}), r"middleware agent_mode: modes\.a\.prompt: Field required"),
        (use("agent_mode", default="a", modes={"a b": {"prompt": ""}}), r"middleware agent_mode: modes\.a b.*"),
        (use("no_such_module:X"), r"middleware no_such_module:X: it cannot be loaded: ModuleNotFoundError.*"),
        (use(f"{HERE}:Nothing"), r"middleware .*:Nothing: it cannot be loaded: AttributeError.*"),
        (use(f"{HERE}:Shouting"), r"middleware .*:Shouting: it cannot be loaded: TypeError.*mark.*"),
        (use(f"{HERE}:Shouting", mark=""), r"middleware .*:Shouting: it cannot be loaded: ValueError: mark is empty"),
        (use(f"{HERE}:half"), r"middleware .*:half: what it returns is no Middleware: it has no tools"),
    ],
)
def test_what_is_wrong_is_named(wrong: MiddlewareUse, message: str) -> None:
    with pytest.raises(ValueError, match=rf"^{message}$"):
        build_middleware([wrong], SystemClock())


def test_values_are_not_shown() -> None:
    with pytest.raises(ValueError, match="system_prompt") as raised:
        build_middleware([use("system_prompt", text={"key": "sk-secret"})], SystemClock())
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("name", [f"{HERE}:Shouting", f"{HERE}.Shouting"])
async def test_middleware_of_an_application(name: str) -> None:
    [shouting] = build_middleware([use(name, mark="!")], SystemClock())
    play = Play()
    await play.run(shouting, engine_call())
    assert play.text == "hello!"

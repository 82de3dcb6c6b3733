"""Tools of Python modules."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from turnwire_server.tools.function import FunctionTool
from turnwire_server.tools.python import PythonToolSource

DECORATED = "from turnwire_server.tools.function import tool\n"
TOOLS = f"""{DECORATED}
@tool
def first() -> int:
    return 1

@tool(name="the-second")
async def second() -> int:
    return 2

alias = first

def no_tool() -> None: ...
"""


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder from which modules can be imported."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "seeded_tools.py").write_text(TOOLS, encoding="utf-8")
    (tmp_path / "seeded_facade.py").write_text("from seeded_tools import first, second\n", encoding="utf-8")
    (tmp_path / "seeded_nothing.py").write_text("value = 1\n", encoding="utf-8")
    (tmp_path / "seeded_broken.py").write_text("raise KeyError('why')\n", encoding="utf-8")
    (tmp_path / "seeded_leaving.py").write_text("raise SystemExit(3)\n", encoding="utf-8")
    twice = f"{DECORATED}\n@tool(name='same')\ndef a() -> None: ...\n\n@tool(name='same')\ndef b() -> None: ...\n"
    (tmp_path / "seeded_twice.py").write_text(twice, encoding="utf-8")
    (tmp_path / "seeded_refused.py").write_text(f"{DECORATED}\n@tool\ndef a(*b: int) -> None: ...\n", encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"module": "seeded_tools"}, ["first", "the-second"]),
        ({"module": "seeded_facade"}, ["first", "the-second"]),
        ({"module": "seeded_tools", "only": ["the-second"]}, ["the-second"]),
        ({"module": "seeded_tools", "only": None}, ["first", "the-second"]),
        ({"module": "seeded_tools:second"}, ["the-second"]),
        ({"module": "seeded_tools:alias"}, ["first"]),
    ],
)
@pytest.mark.usefixtures("modules")
async def test_tools_are_what_a_module_has(settings: Mapping[str, object], names: list[str]) -> None:
    source = PythonToolSource(settings)
    tools = await source.list_tools()
    assert [tool.definition.tool.name for tool in tools] == names
    assert all(isinstance(tool, FunctionTool) for tool in tools)
    assert source.name == settings["module"]
    await source.aclose()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "module: Field required"),
        ({"module": "a b"}, "module: String should match pattern"),
        ({"module": "seeded_tools", "onyl": []}, "onyl: Extra inputs are not permitted"),
        ({"module": "seeded_tools", "only": []}, "only: Tuple should have at least 1 item"),
        ({"module": "seeded_missing"}, "cannot import seeded_missing: ModuleNotFoundError.*PYTHONPATH"),
        ({"module": "seeded_broken"}, "cannot import seeded_broken: KeyError: 'why'"),
        ({"module": "seeded_leaving"}, "cannot import seeded_leaving: SystemExit: 3"),
        ({"module": "seeded_refused"}, "TypeError: no tool can be made of a"),
        ({"module": "seeded_nothing"}, "seeded_nothing has no tools; decorate a function with `tool`"),
        ({"module": "seeded_tools:no_tool"}, "there is no tool no_tool in seeded_tools; decorate"),
        ({"module": "seeded_tools:third"}, "there is no tool third in seeded_tools"),
        ({"module": "seeded_twice"}, "seeded_twice has several tools of the name same; rename"),
        (
            {"module": "seeded_tools", "only": ["third"]},
            "has no tool third, which `only` names; it has first, the-second",
        ),
    ],
)
@pytest.mark.usefixtures("modules")
def test_what_is_wrong_is_said(settings: Mapping[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        PythonToolSource(settings)

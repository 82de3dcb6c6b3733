"""The house: folders that are search paths are no packages."""

from pathlib import Path

from support.proto_docs import ROOT

SEARCH_PATHS = (
    "proto",
    "gen",
    "gen/python",
    "gen/betterproto",
    "server",
    "client",
    "tests",
    "tests/conformance",
    "tools",
)


def packages_by_accident(root: Path) -> list[str]:
    return [folder for folder in SEARCH_PATHS if (root / folder / "__init__.py").exists()]


def test_search_paths_are_no_packages() -> None:
    assert packages_by_accident(ROOT) == []


def test_gate_fails(tmp_path: Path) -> None:
    (tmp_path / "server").mkdir()
    (tmp_path / "server" / "__init__.py").touch()
    assert packages_by_accident(tmp_path) == ["server"]

"""A YAML file that an operator wrote is read, or refused with the place."""

from pathlib import Path

import pytest

from turnwire_server.config.error import ConfigError
from turnwire_server.config.yaml_file import read_yaml


def test_a_file_is_read_with_its_anchors_and_merges(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("base: &b {x: 1, y: é}\none: {<<: *b, x: 2}\ntwo: {<<: *b, x: 3}\n", encoding="utf-8")
    assert read_yaml("profile file", str(path)) == {
        "base": {"x": 1, "y": "é"},
        "one": {"x": 2, "y": "é"},
        "two": {"x": 3, "y": "é"},
    }


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"a: [", "is not YAML"),
        (b"a: 1\nb: {c: 1, d: 2,\n  c: 3}", "the key c is there twice; remove one"),
        (b"a: !!python/object/apply:os.getcwd []", "is not YAML"),
        (b"a: \xff", "is not UTF-8"),
        (b"a: " + b"[" * 5_000, "is nested too deep"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as refused:
        read_yaml("profile file", str(path))
    assert str(refused.value).startswith(f"the profile file {path} ")
    assert says in str(refused.value)


def test_what_stands_in_the_wrong_line_is_not_shown(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("a:\n  api_key: S3CR3T: x\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="line 2") as refused:
        read_yaml("profile file", str(path))
    assert "S3CR3T" not in str(refused.value)


@pytest.mark.parametrize("name", ["nowhere.yaml", "."])
def test_what_is_no_file_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"cannot read the profile file .*: "):
        read_yaml("profile file", str(tmp_path / name))

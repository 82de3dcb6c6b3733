"""Profiles from files, resolved and described."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnwire_server.config.error import ConfigError
from turnwire_server.config.profiles import SETTINGS_BYTES_MAX, load_profiles
from turnwire_server.domain.errors import ProfileNotFoundError
from turnwire_server.domain.profile import Capabilities, EngineInfo, MiddlewareUse, Profiles, ProfileSource

ENGINES = {
    "scripted": EngineInfo("scripted", "plays a script"),
    "blind": EngineInfo("blind", "sees nothing", Capabilities(images=False)),
}


def load(directory: Path, *files: dict[str, Any]) -> Profiles:
    """Load files that are called 1.yaml, 2.yaml, ..."""
    paths = [directory / f"{number}.yaml" for number in range(1, len(files) + 1)]
    for path, content in zip(paths, files, strict=True):
        path.write_text(json.dumps(content))  # which is YAML
    return load_profiles([str(path) for path in paths], {}, ENGINES)


def test_a_later_file_wins_per_profile_and_the_last_default_wins(tmp_path: Path) -> None:
    found = load(
        tmp_path,
        {"default": "a", "profiles": {"a": {"engine": "scripted", "model": "one"}, "b": {"engine": "scripted"}}},
        {"profiles": {"a": {"engine": "scripted", "model": "two"}, "c": {"engine": "scripted"}}},
        {"default": "b"},
    )
    assert list(found.by_name) == ["a", "b", "c"]
    assert found.get("a").config.model == "two"
    assert found.get("").name == "b"


def test_a_profile_has_what_it_extends_and_says_where_it_comes_from(tmp_path: Path) -> None:
    first = {
        "default": "leaf",
        "profiles": {
            "base": {
                "abstract": True,
                "version": 2,
                "engine": "scripted",
                "parameters": {"temperature": 0.5, "seed": 1},
                "middleware": ["log_calls"],
            },
            "leaf": {"extends": "base", "model": "m", "parameters": {"seed": 2}},
        },
    }
    second = {
        "profiles": {
            "base": {"extends": "base", "system_prompt": "Be kind."},
            "leaf": {"extends": "leaf", "version": 3, "parameters": {"temperature": None}},
        }
    }
    found = load(tmp_path, first, second)
    assert list(found.by_name) == ["leaf"]  # what is abstract is not offered
    with pytest.raises(ProfileNotFoundError):
        found.get("base")
    leaf = found.get("")
    one, two = (str(tmp_path / name) for name in ("1.yaml", "2.yaml"))
    assert leaf.lineage == (
        ProfileSource("base", 2, one),
        ProfileSource("base", 1, two),
        ProfileSource("leaf", 1, one),
        ProfileSource("leaf", 3, two),
    )
    assert leaf.version == 3
    assert leaf.engine == "scripted"
    assert (leaf.config.model, leaf.config.temperature, leaf.config.seed) == ("m", None, 2)
    assert leaf.middleware == (MiddlewareUse("log_calls"), MiddlewareUse("system_prompt", {"text": "Be kind."}))


def test_capabilities_are_those_that_engine_and_profile_have(tmp_path: Path) -> None:
    narrowed = {"capabilities": {"images": True, "tools": False}}
    profiles = {"a": {"engine": "blind", **narrowed}, "b": {"engine": "scripted", **narrowed}}
    found = load(tmp_path, {"default": "a", "profiles": profiles})
    assert found.get("a").capabilities == Capabilities(images=False, tools=False)
    assert found.get("b").capabilities == Capabilities(tools=False)
    assert json.loads(found.get("a").settings_text)["capabilities"]["images"] is False


def test_the_settings_are_what_is_in_effect_without_what_could_be_a_secret(tmp_path: Path) -> None:
    profile = {
        "engine": "scripted",
        "description": "d",
        "engine_options": {"base_url": "https://u:s3@host/v1?a=s3", "api_key_env": "A_KEY", "api_key": "s3"},
        "model": "m",
        "system_prompt": "See https://host/?s3",
        "middleware": [{"name": "sql_tool", "settings": {"password": "s3"}}],
        "tools": [
            {"mcp": {"name": "t", "env": {"T": "s3"}, "headers": {"X": "s3"}, "command": ["a", "--token", "s3"]}}
        ],
        "parameters": {"max_output_tokens": 7},
    }
    text = load(tmp_path, {"default": "a", "profiles": {"a": profile}}).get("").settings_text
    assert "s3" not in text
    settings = json.loads(text)
    assert settings["engine_options"] == {
        "base_url": "https://***@host/v1?***",
        "api_key_env": "A_KEY",
        "api_key": "***",
    }
    assert settings["tools"][0]["kind"] == "mcp"
    assert settings["tools"][0]["settings"]["env"] == {"T": "***"}
    assert settings["parameters"]["max_output_tokens"] == 7
    assert settings["tool_policy"]["timeout_seconds"] == 30.0
    assert settings.keys() == {
        "engine",
        "engine_options",
        "model",
        "parameters",
        "system_prompt",
        "middleware",
        "tools",
        "tool_policy",
        "output_repairs_max",
        "record_snapshots",
        "overrides",
        "capabilities",
    }


PLACES = (
    lambda held: {"engine_options": {"more": held}},
    lambda held: {"middleware": [{"name": "m", "settings": {"more": [held]}}]},
    lambda held: {"tools": [{"mcp": {"more": held}}]},
    lambda held: {"tools": [{"python": {"module": "m", "more": held}}]},
)


@given(
    place=st.sampled_from(PLACES),
    key=st.sampled_from(("api_key", "token", "client_secret", "Password", "env", "headers", "Authorization")),
    secret=st.text("abc019", min_size=3).map(lambda text: f"S3CR3T{text}"),
    is_inherited=st.booleans(),
)
def test_no_secret_is_in_the_settings(
    tmp_path_factory: pytest.TempPathFactory, place: Any, key: str, secret: str, is_inherited: bool
) -> None:
    held = place({key: {"X": secret}})
    base = {"abstract": True, "engine": "scripted", **(held if is_inherited else {})}
    leaf = {"extends": "base", **({} if is_inherited else held)}
    directory = tmp_path_factory.mktemp("profiles")
    profile = load(directory, {"default": "leaf", "profiles": {"base": base, "leaf": leaf}}).get("")
    settings = [each.settings for each in (*profile.middleware, *profile.tools)]
    assert secret in repr((profile.engine_options, settings))
    assert secret not in profile.settings_text
    assert secret not in repr(profile)


SCRIPTED = {"engine": "scripted"}


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ([{"profiles": {"a": SCRIPTED}}], "no default profile in {1}; add `default:` with one of: a"),
        (
            [{"default": "b", "profiles": {"a": SCRIPTED}}],
            "the profile file {1} names b as the default, which no file has",
        ),
        (
            [{"default": "a", "profiles": {"a": SCRIPTED}}, {"profiles": {"a": {"abstract": True}}}],
            "the profile file {1} names a as the default, which is abstract; there are: none",
        ),
        ([{"default": "a", "profiles": {"a": {"model": "m"}}}], "the profile a ({1}) has no engine; add `engine:`"),
        ([{"default": "a", "profiles": {"a": {"engine": "x"}}}], "a ({1}) needs the engine x, which is not installed"),
        (
            [{"default": "a", "profiles": {"a": {"engine": "scripted", "modle": "x"}}}],
            "profiles.a.modle: there is no such",
        ),
        (
            [
                {"default": "a", "profiles": {"a": {"engine": "scripted", "middleware": ["system_prompt"]}}},
                {"profiles": {"a": {"extends": "a", "system_prompt": "x"}}},
            ],
            "the profile a ({2}), laid over a ({1}), is not valid:\n  as a whole: the system prompt is said twice",
        ),
        (
            [{"default": "a", "profiles": {"a": {**SCRIPTED, "engine_options": {"x": "a" * SETTINGS_BYTES_MAX}}}}],
            "larger",
        ),
        (
            [{"default": "a", "profiles": {"a": {**SCRIPTED, "system_prompt": "\ud800"}}}],
            "a ({1}) has text that is not Uni",
        ),
        (
            [{"default": "a", "profiles": {"a": {"extends": "b"}, "b": {"extends": "a"}}}],
            "in a circle: a ({1}) -> b ({1})",
        ),
        ([{"default": "a", "profiles": {"a": SCRIPTED, "b": {"abstract": True, "extends": "c"}}}], "b ({1}) extends c"),
    ],
)
def test_what_is_wrong_names_file_and_profile(tmp_path: Path, files: list[dict[str, Any]], says: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load(tmp_path, *files)
    assert says.replace("{1}", str(tmp_path / "1.yaml")).replace("{2}", str(tmp_path / "2.yaml")) in str(refused.value)


def test_a_file_that_is_named_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("default: a\nprofiles: {a: {engine: scripted}}\n")
    with pytest.raises(ConfigError, match="named twice"):
        load_profiles([str(path), f"{tmp_path}/./a.yaml"], {}, ENGINES)


def test_a_file_that_contains_itself_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("default: a\nprofiles: {a: &a {engine: scripted, engine_options: *a}}\n")
    with pytest.raises(ConfigError, match="contains itself"):
        load_profiles([str(path)], {}, ENGINES)


def test_without_a_file_there_are_profiles_for_what_the_environment_has() -> None:
    alone = load_profiles([], {}, ENGINES)
    assert list(alone.by_name) == ["scripted"]
    assert alone.get("").lineage == (ProfileSource("scripted", 1, "built-in"),)
    environment = {
        "TURNWIRE_BASE_URL": "http://u:s3@127.0.0.1:8080/v1",
        "TURNWIRE_API_KEY": "s3",
        "OPENAI_API_KEY": "s3",
        "GOOGLE_API_KEY": "s3",
        "GEMINI_API_KEY": "s3",
    }
    found = load_profiles([], environment, ENGINES)
    assert found.default == "compatible"
    assert set(found.by_name) == {"compatible", "openai", "gemini", "scripted"}
    assert found.get("compatible").engine_options == {
        "dialect": "openai-chat",
        "base_url": "http://u:s3@127.0.0.1:8080/v1",
        "api_key_env": "TURNWIRE_API_KEY",
    }
    assert found.get("gemini").engine_options["api_key_env"] == "GEMINI_API_KEY"
    assert all("s3" not in profile.settings_text for profile in found.by_name.values())
    renamed = load_profiles([], {"OPENAI_API_KEY": "s3", "TURNWIRE_MODEL": "mine"}, ENGINES)
    assert renamed.get("").config.model == "mine"


def test_a_model_that_the_contract_has_no_room_for_is_refused() -> None:
    with pytest.raises(ConfigError, match="a built-in profile"):
        load_profiles([], {"OPENAI_API_KEY": "s3", "TURNWIRE_MODEL": "m" * 257}, ENGINES)

"""The form of a profile file, and the nouns that come of it."""

from typing import Any, get_args

import pytest
from pydantic import ValidationError

from turnwire_server.config.error import explain
from turnwire_server.config.profile_file import Override, ProfileEntry, ProfileFile
from turnwire_server.domain.inference import InferenceConfig
from turnwire_server.domain.profile import OVERRIDES, MiddlewareUse, OnToolError, Profile, ToolPolicy, ToolSourceUse


def entry(**values: Any) -> ProfileEntry:
    return ProfileEntry.model_validate(values)


def test_an_empty_profile_is_what_the_noun_has_by_default() -> None:
    read, noun = entry(), Profile("a", "")
    assert read.config() == noun.config
    assert read.middleware_uses() == noun.middleware
    assert read.tool_sources() == noun.tools
    assert read.tool_policy.policy() == noun.tool_policy
    assert read.capabilities.capabilities() == noun.capabilities
    assert frozenset(read.overrides) == noun.overrides
    for name in ("version", "description", "output_repairs_max", "record_snapshots"):
        assert getattr(read, name) == getattr(noun, name)


def test_model_and_parameters_are_the_configuration() -> None:
    read = entry(model="m", parameters={"temperature": 1, "stop_sequences": ["a", "b"], "tool_choice": "auto"})
    assert read.config() == InferenceConfig("m", temperature=1.0, stop_sequences=("a", "b"), tool_choice="auto")


def test_middleware_has_a_name_or_settings_too_and_the_system_prompt_is_innermost() -> None:
    read = entry(system_prompt="Be kind.", middleware=["log_calls", {"name": "agent_mode", "settings": {"a": [None]}}])
    assert read.middleware_uses() == (
        MiddlewareUse("log_calls"),
        MiddlewareUse("agent_mode", {"a": [None]}),
        MiddlewareUse("system_prompt", {"text": "Be kind."}),
    )


def test_tools_come_from_modules_and_from_servers() -> None:
    server = {"name": "time", "command": ["mcp-server-time"]}
    read = entry(tools=[{"python": "my.tools"}, {"python": {"module": "my.tools", "only": ["a"]}}, {"mcp": server}])
    assert read.tool_sources() == (
        ToolSourceUse("python", {"module": "my.tools"}),
        ToolSourceUse("python", {"module": "my.tools", "only": ["a"]}),
        ToolSourceUse("mcp", server),
    )


def test_the_tool_policy() -> None:
    read = entry(tool_policy={"allow": ["a"], "approve": ["b"], "on_error": "abort", "answer_seconds_max": 600})
    policy = ToolPolicy(frozenset({"a"}), frozenset({"b"}), on_error=OnToolError.ABORT, answer_seconds_max=600.0)
    assert read.tool_policy.policy() == policy
    assert entry(tool_policy={"allow": []}).tool_policy.policy().allow == frozenset()  # none, where nothing means all


def test_overrides_have_words_for_all_and_none() -> None:
    assert set(get_args(Override)) == OVERRIDES
    assert frozenset(entry(overrides="all").overrides) == OVERRIDES
    assert entry(overrides="none").overrides == []
    assert entry(overrides=["tools", "model"]).overrides == ["tools", "model"]


def test_extends_takes_one_name_or_several() -> None:
    assert entry(extends="a").extends == ["a"]
    assert entry(extends=["a", "b"]).extends == ["a", "b"]


def test_null_is_nothing_in_a_profile_by_itself() -> None:
    read = entry(model=None, parameters={"temperature": None}, engine_options={"a": {"b": None}, "c": [None]})
    assert read.config() == InferenceConfig()
    assert read.engine_options == {"a": {}, "c": [None]}


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"engin": "scripted"}, "engin: there is no such field; correct its name, or remove it"),
        ({"parameters": {"temperature": 3}}, "parameters.temperature: Input should be less than or equal to 2"),
        ({"parameters": {"temperature": "1"}}, "parameters.temperature: Input should be a valid number"),
        ({"parameters": {"seed": 2**63}}, "parameters.seed:"),
        ({"parameters": {"max_output_tokens": 2**32}}, "parameters.max_output_tokens:"),
        ({"parameters": {"stop_sequences": [""]}}, "parameters.stop_sequences.0:"),
        ({"parameters": []}, "parameters: must be a map of fields"),
        ({"engine_options": []}, "engine_options: must be a map"),
        ({"engine_options": {"a": float("inf")}}, "engine_options.a.float: Input should be a finite number"),
        ({"engine_options": {"a": {1, 2}}}, "engine_options.a: must be what JSON has"),
        ({"version": 0}, "version:"),
        ({"version": "1"}, "version:"),
        ({"version": 2**64}, "version:"),
        ({"record_snapshots": "yes"}, "record_snapshots:"),
        ({"middleware": [{"settings": {}}]}, "middleware.0.name: is missing; add it"),
        ({"middleware": ["a", {"name": "b", "more": 1}]}, "middleware.1.more: there is no such field"),
        ({"tools": [{"python": "a", "mcp": {}}]}, "tools.0: must be `python: MODULE`"),
        ({"tools": ["a"]}, "tools.0: must be `python: MODULE`"),
        ({"tools": [{"shell": {}}]}, "tools.0.kind: Input should be 'python' or 'mcp'"),
        ({"tools": [{"mcp": None}]}, "tools.0.settings: must be a map"),
        ({"tool_policy": {"retries_max": 11}}, "tool_policy.retries_max:"),
        ({"tool_policy": {"timeout_seconds": 0}}, "tool_policy.timeout_seconds:"),
        ({"tool_policy": {"on_error": "stop"}}, "tool_policy.on_error: Input should be 'continue' or 'abort'"),
        ({"overrides": "some"}, "overrides:"),
        ({"overrides": ["everything"]}, "overrides.0: Input should be 'model', 'config'"),
        ({"capabilities": {"image": False}}, "capabilities.image: there is no such field"),
        ({"extends": [""]}, "extends.0:"),
        ({"extends": 1}, "extends:"),
        ({"system_prompt": "a", "middleware": ["system_prompt"]}, "as a whole: the system prompt is said twice"),
    ],
)
def test_what_is_wrong_is_named_with_its_field(values: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError) as refused:
        ProfileEntry.model_validate(values)
    assert f"\n  {says}" in str(explain("a profile", refused.value))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "as a whole: must be a map of fields"),
        ([], "as a whole: must be a map of fields"),
        ({}, "as a whole: names no profiles and no default; add `profiles:`"),
        ({"profiles": {"a": None}}, "profiles.a: must be a map of fields"),
        ({"profiles": {"": {}}}, "profiles..[key]: String should have at least 1 character"),
        ({"profiles": {"a" * 129: {}}}, "String should have at most 128 characters"),
        ({"profiles": {"a": {}}, "defaults": "a"}, "defaults: there is no such field"),
    ],
)
def test_what_is_wrong_with_a_file_is_named(content: Any, says: str) -> None:
    with pytest.raises(ValidationError) as refused:
        ProfileFile.model_validate(content)
    assert says in str(explain("a file", refused.value))

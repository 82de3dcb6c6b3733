"""Configuration, tools and output schema to pydantic-ai's settings.

What a provider has no field for is left out of the request:

    seed                  Anthropic, OpenAI Responses
    stop_sequences        OpenAI Responses
    parallel_tool_calls   Gemini
    reasoning_effort      models that do not reason, except on OpenAI-compatible servers, which get what was asked for
    output_schema         models without structured output, and Gemini before 3 when there are tools: the runtime
                          checks the text all the same
"""

import json
from typing import Any, Literal, cast

from pydantic_ai.models import Model, ModelRequestParameters
from pydantic_ai.output import OutputObjectDefinition
from pydantic_ai.settings import ModelSettings
from pydantic_ai.tools import ToolDefinition

from turnwire_server.domain.inference import InferenceConfig
from turnwire_server.domain.tool import Tool
from turnwire_server.engines.base import EngineCall
from turnwire_server.engines.pydantic_ai.options import Dialect, Options

_NO_ARGUMENTS = '{"type": "object", "properties": {}}'

_OPENAI = frozenset({Dialect.OPENAI_CHAT, Dialect.OPENAI_RESPONSES})


def to_settings(config: InferenceConfig, options: Options, model: Model, *, has_tools: bool) -> ModelSettings:
    """Return the settings of one call."""
    wanted: dict[str, object] = {
        "max_tokens": config.max_output_tokens,
        "temperature": config.temperature,
        "top_p": config.top_p,
        "seed": config.seed,
        "stop_sequences": list(config.stop_sequences) or None,
    }
    if has_tools:
        wanted["parallel_tool_calls"] = config.parallel_tool_calls
        wanted["tool_choice"] = _tool_choice(config.tool_choice)
    if config.reasoning_effort:
        wanted |= _reasoning(config.reasoning_effort, options, model)
    if options.endpoint.dialect is Dialect.OPENAI_RESPONSES:
        # The conversation is kept here, so the provider need not keep it too.
        wanted |= {"openai_store": False, "openai_reasoning_summary": options.reasoning_summary or None}
    settings = {name: value for name, value in wanted.items() if value is not None}
    return cast("ModelSettings", {name: settings[name] for name in settings.keys() - model.unsupported_settings})


def to_parameters(call: EngineCall, model: Model) -> ModelRequestParameters:
    """Return the tools and the structured output of one call."""
    tools = [_tool_definition(tool) for tool in call.tools]
    if not call.output_schema or not _can_structure(model, has_tools=bool(tools)):
        return ModelRequestParameters(function_tools=tools)
    schema = _schema(call.output_schema)
    return ModelRequestParameters(
        function_tools=tools,
        output_mode="native",
        output_object=OutputObjectDefinition(json_schema=schema, name="output"),
    )


def _can_structure(model: Model, *, has_tools: bool) -> bool:
    profile = cast("dict[str, object]", model.profile)
    # Gemini before 3 takes tools or a schema, not both.
    combines = model.system != "google" or bool(profile.get("google_supports_tool_combination", False))
    return bool(profile.get("supports_json_schema_output", False)) and (combines or not has_tools)


def _tool_definition(tool: Tool) -> ToolDefinition:
    schema = _schema(tool.input_schema or _NO_ARGUMENTS, type="object")
    return ToolDefinition(name=tool.name, parameters_json_schema=schema, description=tool.description or None)


def _schema(text: str, **said: object) -> dict[str, Any]:
    """Return a schema as the object that providers want; `said` is what else a boolean one has to say."""
    schema: object = json.loads(text)
    if isinstance(schema, bool):
        return {**said} if schema else {**said, "not": {}}
    return cast("dict[str, Any]", schema)


def _tool_choice(choice: str) -> Literal["auto", "none", "required"] | list[str] | None:
    match choice:
        case "":
            return None
        case "auto" | "none" | "required":
            return choice
        case _:
            return [choice]


def _reasoning(effort: str, options: Options, model: Model) -> dict[str, object]:
    reasons = model.profile.get("supports_thinking", False)
    if not reasons and options.endpoint.base_url and options.endpoint.dialect in _OPENAI:
        return {"openai_reasoning_effort": effort}
    return {"thinking": False if effort == "none" else effort}

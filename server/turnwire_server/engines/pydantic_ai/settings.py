"""Configuration, tools and output schema to pydantic-ai's settings.

What a provider has no field for is left out of the request:

    seed                  Anthropic, OpenAI Responses
    stop_sequences        OpenAI Responses
    parallel_tool_calls   Gemini
    reasoning_effort      models that do not reason, except on OpenAI-compatible servers, which get what was asked for
    output_schema         models without structured output; Gemini before 3 when there are tools; and what a provider
                          would refuse or understand in another way. The runtime checks the text all the same
"""

import json
from dataclasses import replace
from typing import Any, Literal, cast

from pydantic_ai.exceptions import UserError
from pydantic_ai.models import Model, ModelRequestParameters
from pydantic_ai.output import OutputObjectDefinition
from pydantic_ai.settings import ModelSettings
from pydantic_ai.tools import ToolDefinition

from turnwire_server.domain.inference import InferenceConfig
from turnwire_server.domain.tool import Tool
from turnwire_server.engines.base import EngineCall
from turnwire_server.engines.pydantic_ai.options import Dialect, Options

_NO_ARGUMENTS = '{"type": "object", "properties": {}, "additionalProperties": false}'

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
    tools = [_tool_definition(tool, model) for tool in call.tools]
    parameters = ModelRequestParameters(function_tools=tools)
    schema: object = json.loads(call.output_schema) if call.output_schema else None
    if not isinstance(schema, dict) or not _can_structure(model, has_tools=bool(tools)):
        return parameters
    output = _output_object(cast("dict[str, Any]", schema), model)
    structured = replace(parameters, output_mode="native", output_object=output)
    return structured if output and _is_understood(structured, model) else parameters


def _output_object(schema: dict[str, Any], model: Model) -> OutputObjectDefinition | None:
    """Return the output schema as the provider is to have it, None if it could only have another one.

    OpenAI and Anthropic refuse whatever is not an object. An object that does not say what is in it would be taken for
    an empty one, by Anthropic always and by OpenAI where it is strict.
    """
    is_free = _has_free_object(schema)
    match model.system:
        case "google":
            can_hold = bool(schema)
        case "openai":
            can_hold = schema.get("type") == "object"
        case _:
            can_hold = schema.get("type") == "object" and not is_free
    strict = _strictness(model, is_free=is_free)
    return OutputObjectDefinition(json_schema=schema, name="output", strict=strict) if can_hold else None


def _is_understood(parameters: ModelRequestParameters, model: Model) -> bool:
    """Whether the SDKs can turn a schema into the provider's: each knows a part of JSON Schema only."""
    try:
        model.prepare_request(None, parameters)
    except (ValueError, UserError):
        return False
    return True


def _strictness(model: Model, *, is_free: bool) -> bool | None:
    """Return what keeps pydantic-ai from closing objects that are free: strict is what it finds to be so otherwise."""
    return False if is_free and model.system == "openai" else None


def _has_free_object(schema: object) -> bool:
    """Whether a schema has an object somewhere that may have properties which it does not name."""
    if isinstance(schema, list):
        return any(_has_free_object(each) for each in cast("list[object]", schema))
    if not isinstance(schema, dict):
        return False
    node = cast("dict[str, object]", schema)
    kind, extra = node.get("type"), node.get("additionalProperties")
    is_object = kind == "object" or (isinstance(kind, list) and "object" in kind)
    is_closed = extra is False or (extra is None and bool(node.get("properties")))
    is_free = is_object and ("patternProperties" in node or not is_closed)
    return is_free or any(_has_free_object(each) for each in node.values())


def _can_structure(model: Model, *, has_tools: bool) -> bool:
    profile = cast("dict[str, object]", model.profile)
    # Gemini before 3 takes tools or a schema, not both.
    combines = model.system != "google" or bool(profile.get("google_supports_tool_combination", False))
    return bool(profile.get("supports_json_schema_output", False)) and (combines or not has_tools)


def _tool_definition(tool: Tool, model: Model) -> ToolDefinition:
    schema = _schema(tool.input_schema or _NO_ARGUMENTS)
    return ToolDefinition(
        name=tool.name,
        parameters_json_schema=schema,
        description=tool.description or None,
        strict=_strictness(model, is_free=_has_free_object(schema)),
    )


def _schema(text: str) -> dict[str, Any]:
    """Return the schema of a tool as the object that providers want."""
    schema: object = json.loads(text)
    if isinstance(schema, bool):
        return {"type": "object"} if schema else {"type": "object", "not": {}}
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

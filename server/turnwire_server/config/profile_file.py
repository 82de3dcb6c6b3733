"""The form of a profile file. What its fields do is said in README.md, under Profiles."""

from typing import Annotated, Any, Literal, cast, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, model_validator

from turnwire_server.config.overlay import overlay
from turnwire_server.domain.inference import InferenceConfig
from turnwire_server.domain.profile import (
    Capabilities,
    MiddlewareUse,
    OnToolError,
    ToolPolicy,
    ToolSourceUse,
)

SYSTEM_PROMPT = "system_prompt"

# domain.profile.OVERRIDES, in words that pydantic can tell an author.
Override = Literal["model", "config", "tools", "output_schema", "engine_options", "record_snapshots"]
ALL_OVERRIDES: list[Override] = list(get_args(Override))


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _used(value: object) -> object:
    return {"name": value} if isinstance(value, str) else value


def _sourced(value: Any) -> Any:
    """Read `python: MODULE`, `python: {...}` and `mcp: {...}`."""
    if not isinstance(value, dict) or len(cast("dict[str, Any]", value)) != 1:
        msg = "must be `python: MODULE`, `python: {...}` or `mcp: {...}`, each with a hyphen of its own"
        raise ValueError(msg)
    ((kind, settings),) = cast("dict[str, Any]", value).items()
    return {"kind": kind, "settings": {"module": settings} if isinstance(settings, str) else settings}


def _allowed(value: object) -> object:
    return {"all": ALL_OVERRIDES, "none": []}.get(value, value) if isinstance(value, str) else value


def _without_null(value: Any) -> Any:
    """Leave out what takes away: in a profile by itself there is nothing that it could be taken from."""
    return overlay({}, cast("dict[str, Any]", value)) if isinstance(value, dict) else value


Name = Annotated[str, Field(min_length=1, max_length=128)]
JsonObject = dict[str, JsonValue]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class ParametersEntry(_Part):
    """The parameters of engine calls, within the bounds of the contract."""

    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    max_output_tokens: int | None = Field(default=None, ge=1, lt=2**32)
    stop_sequences: list[Annotated[str, Field(min_length=1, max_length=256)]] = Field(default=[], max_length=16)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    reasoning_effort: Literal["", "none", "low", "medium", "high"] = ""
    iterations_max: int | None = Field(default=None, ge=1, le=100)
    tool_choice: str = Field(default="", max_length=64)
    parallel_tool_calls: bool | None = None


class MiddlewareEntry(_Part):
    """One middleware: its name alone, or with settings."""

    name: Name
    settings: JsonObject = {}


class ToolSourceEntry(_Part):
    """Where tools come from."""

    kind: Literal["python", "mcp"]
    settings: JsonObject


class ToolPolicyEntry(_Part):
    """How tools are offered and executed."""

    allow: list[Name] | None = None
    approve: list[Name] = []
    timeout_seconds: float = Field(default=30.0, gt=0)
    retries_max: int = Field(default=0, ge=0, le=10)
    retry_seconds: float = Field(default=1.0, ge=0)
    parallelism_max: int = Field(default=4, ge=1, le=128)
    on_error: Literal["continue", "abort"] = "continue"
    answer_seconds_max: float | None = Field(default=None, gt=0)

    def policy(self) -> ToolPolicy:
        """Return the noun."""
        fields: dict[str, Any] = dict(self)
        fields["allow"] = None if self.allow is None else frozenset(self.allow)
        fields["approve"] = frozenset(self.approve)
        fields["on_error"] = OnToolError(self.on_error)
        return ToolPolicy(**fields)


class CapabilitiesEntry(_Part):
    """What the profile's model can do, of what its engine can do."""

    streaming: bool = True
    tools: bool = True
    structured_output: bool = True
    images: bool = True
    reasoning: bool = True

    def capabilities(self) -> Capabilities:
        """Return the noun."""
        return Capabilities(**dict(self))


class ProfileEntry(_Part):
    """One profile, as a file has it, or resolved."""

    extends: Annotated[list[Name], BeforeValidator(_listed)] = []
    abstract: bool = False
    version: int = Field(default=1, ge=1, lt=2**64)
    description: str = Field(default="", max_length=2000)
    engine: str = ""
    engine_options: JsonObject = {}
    model: str = Field(default="", max_length=256)
    parameters: ParametersEntry = ParametersEntry()
    system_prompt: str = ""
    middleware: list[Annotated[MiddlewareEntry, BeforeValidator(_used)]] = []
    tools: list[Annotated[ToolSourceEntry, BeforeValidator(_sourced)]] = []
    tool_policy: ToolPolicyEntry = ToolPolicyEntry()
    output_repairs_max: int = Field(default=1, ge=0, le=10)
    record_snapshots: bool = False
    overrides: Annotated[list[Override], BeforeValidator(_allowed)] = ALL_OVERRIDES
    capabilities: CapabilitiesEntry = CapabilitiesEntry()

    @model_validator(mode="before")
    @classmethod
    def _take_away(cls, value: Any) -> Any:
        return _without_null(value)

    @model_validator(mode="after")
    def _has_one_system_prompt(self) -> "ProfileEntry":
        if self.system_prompt and any(use.name == SYSTEM_PROMPT for use in self.middleware):
            msg = "the system prompt is said twice, as system_prompt and in middleware; keep one"
            raise ValueError(msg)
        return self

    def config(self) -> InferenceConfig:
        """Return the configuration of engine calls."""
        fields: dict[str, Any] = dict(self.parameters)
        fields["stop_sequences"] = tuple(self.parameters.stop_sequences)
        return InferenceConfig(model=self.model, **fields)

    def middleware_uses(self) -> tuple[MiddlewareUse, ...]:
        """Return the middleware, outermost first; the system prompt is the innermost."""
        uses = tuple(MiddlewareUse(each.name, each.settings) for each in self.middleware)
        return (*uses, MiddlewareUse(SYSTEM_PROMPT, {"text": self.system_prompt})) if self.system_prompt else uses

    def tool_sources(self) -> tuple[ToolSourceUse, ...]:
        """Return where tools come from."""
        return tuple(ToolSourceUse(each.kind, each.settings) for each in self.tools)


class ProfileFile(_Part):
    """One profile file. A file that only names another default has no profiles."""

    default: Name | None = None
    profiles: dict[Name, ProfileEntry] = {}

    @model_validator(mode="after")
    def _says_something(self) -> "ProfileFile":
        if self.default is None and not self.profiles:
            msg = "names no profiles and no default; add `profiles:`"
            raise ValueError(msg)
        return self

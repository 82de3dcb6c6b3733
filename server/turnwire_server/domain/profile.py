"""Profiles: named configurations of engine, middleware, tools and limits."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import Enum

from turnwire_server.domain.errors import ProfileNotFoundError
from turnwire_server.domain.inference import InferenceConfig


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an engine or a profile can do."""

    streaming: bool = True
    tools: bool = True
    structured_output: bool = True
    images: bool = True
    reasoning: bool = True

    def narrowed_to(self, other: "Capabilities") -> "Capabilities":
        """Return what both can do."""
        both = {each.name: getattr(self, each.name) and getattr(other, each.name) for each in fields(self)}
        return Capabilities(**both)


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """An engine as it is listed."""

    name: str
    description: str
    capabilities: Capabilities = Capabilities()


@dataclass(frozen=True, slots=True)
class MiddlewareUse:
    """That a profile puts a middleware around its engine calls; `settings` are what only that middleware knows."""

    name: str
    settings: Mapping[str, object] = field(default_factory=dict[str, object], repr=False)


@dataclass(frozen=True, slots=True)
class ToolSourceUse:
    """That a profile offers tools from somewhere: `python` or `mcp`; `settings` are what that kind understands."""

    kind: str
    settings: Mapping[str, object] = field(default_factory=dict[str, object], repr=False)


class OnToolError(Enum):
    """What the failure of a tool of the server means for the inference."""

    CONTINUE = "continue"  # the model gets it as data
    ABORT = "abort"  # the inference ends with TOOL_FAILED


@dataclass(frozen=True, slots=True)
class ToolPolicy:
    """How tools are offered and executed.

    `allow`: the only ones that are offered and executed; None: all. `approve`: those of the server that a person has to
    approve. `retry_seconds` is the pause before the first repetition of a tool that may be repeated; it doubles.
    `answer_seconds_max` bounds how long the inference waits for its client; None: for ever.
    """

    allow: frozenset[str] | None = None
    approve: frozenset[str] = frozenset()
    timeout_seconds: float = 30.0
    retries_max: int = 0
    retry_seconds: float = 1.0
    parallelism_max: int = 4
    on_error: OnToolError = OnToolError.CONTINUE
    answer_seconds_max: float | None = None


@dataclass(frozen=True, slots=True)
class ProfileSource:
    """One profile that another one was made of, and where it was read."""

    profile: str
    version: int
    source: str


# What a request or a session may change of a profile that allows everything.
OVERRIDES = frozenset({"model", "config", "tools", "output_schema", "engine_options", "record_snapshots"})


@dataclass(frozen=True, slots=True)
class Profile:
    """One profile, resolved. `engine_options` are what only its engine understands.

    `output_repairs_max`: how often a text that does not satisfy the output schema is sent back to the model.
    `settings_text` is all of it as JSON text, with what could be a secret masked.
    """

    name: str
    engine: str
    description: str = ""
    config: InferenceConfig = InferenceConfig()
    engine_options: Mapping[str, object] = field(default_factory=dict[str, object], repr=False)
    version: int = 1
    middleware: tuple[MiddlewareUse, ...] = ()
    tools: tuple[ToolSourceUse, ...] = ()
    tool_policy: ToolPolicy = ToolPolicy()
    output_repairs_max: int = 1
    record_snapshots: bool = False
    overrides: frozenset[str] = OVERRIDES
    capabilities: Capabilities = Capabilities()
    lineage: tuple[ProfileSource, ...] = ()
    settings_text: str = "{}"


@dataclass(frozen=True, slots=True)
class Profiles:
    """All profiles of a server, and the name of the one that is used when nobody names one."""

    by_name: Mapping[str, Profile]
    default: str

    def get(self, name: str) -> Profile:
        """Return a profile, the default one for an empty name. Errors: ProfileNotFoundError."""
        profile = self.by_name.get(name or self.default)
        if profile is None:
            raise ProfileNotFoundError(profile=name or self.default)
        return profile

"""Settings of a server, and its profile file.

A setting comes from a flag, else from the environment (`TURNWIRE_` and the name in capitals), else from the file that
`--config` names (YAML), else it has its default.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    CliApp,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    YamlConfigSettingsSource,
)

from turnwire_server.domain.inference import InferenceConfig
from turnwire_server.domain.profile import MiddlewareUse, Profile, Profiles


class ConfigError(Exception):
    """A setting or the profile file is wrong. The message says where, and what to do."""


class Settings(BaseSettings):
    """The settings of one server process."""

    model_config = SettingsConfigDict(
        env_prefix="TURNWIRE_", extra="forbid", cli_kebab_case=True, cli_prog_name="turnwire serve", frozen=True
    )

    config: Annotated[str, Field(description="a YAML file with settings")] = ""
    listen: Annotated[
        str, Field(pattern=r"^([^:\s]+|\[[0-9A-Fa-f:]+\]):\d{1,5}$", description="host:port; port 0 takes any free one")
    ] = "127.0.0.1:7450"
    store: Annotated[str, Field(description="the SQLite file, or `memory`, which forgets everything at the end")] = (
        "turnwire.db"
    )
    synchronous: Annotated[
        Literal["full", "normal"],
        Field(description="`normal` is faster; a power cut may lose what was acknowledged last"),
    ] = "full"
    restored: Annotated[
        bool,
        Field(description="for one start, after the file was restored from a copy: its logs are other logs now"),
    ] = False
    profiles: Annotated[str, Field(description="a YAML file with profiles; empty: the built-in ones")] = ""
    log_format: Annotated[Literal["console", "json"], Field(description="the form of the log lines")] = "console"
    log_level: Annotated[Literal["debug", "info", "warning", "error"], Field(description="the least to log")] = "info"
    # At the bound further inferences stay QUEUED.
    inferences_running_max: Annotated[int, Field(ge=1, description="the most inferences at a time")] = 1000
    # At the bound SubscribeEvents answers TOO_MANY_WATCHERS.
    watchers_max: Annotated[int, Field(ge=1, description="the most event streams at a time")] = 10_000
    heartbeat_seconds: Annotated[float, Field(gt=0, description="how long a stream is silent at most")] = 15.0
    silence_seconds_max: Annotated[
        float,
        Field(gt=0, description="how long an engine may say nothing; then ENGINE_STALLED ends its inference"),
    ] = 600.0
    drain_grace_seconds: Annotated[
        float, Field(ge=0, description="how long inferences may still run after SIGTERM or SIGINT")
    ] = 30.0

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Put the YAML file below the environment."""
        return (init_settings, env_settings, YamlConfigSettingsSource(settings_cls))


def load_settings(arguments: Sequence[str]) -> Settings:
    """Return the settings for the arguments of the command line. Errors: ConfigError."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--config", default="")
    path = first.parse_known_args(arguments)[0].config
    if path and not Path(path).is_file():
        msg = f"there is no file {path}; --config names a YAML file with settings"
        raise ConfigError(msg)

    class FileSettings(Settings):
        model_config = SettingsConfigDict(yaml_file=path or None)

    try:
        return CliApp.run(FileSettings, cli_args=list(arguments))
    except ValidationError as error:
        raise ConfigError(_explain("settings", error)) from None
    except yaml.YAMLError as error:
        msg = f"{path} is not YAML: {error}"
        raise ConfigError(msg) from None


class _Parameters(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    max_output_tokens: int | None = Field(default=None, ge=1)
    stop_sequences: tuple[str, ...] = Field(default=(), max_length=16)
    seed: int | None = None
    reasoning_effort: Literal["", "none", "low", "medium", "high"] = ""
    iterations_max: int | None = Field(default=None, ge=1, le=100)
    tool_choice: str = ""
    parallel_tool_calls: bool | None = None


class _ProfileEntry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    engine: Literal["scripted", "pydantic_ai"]
    description: str = ""
    model: str = ""
    parameters: _Parameters = _Parameters()
    system_prompt: str = ""
    engine_options: dict[str, Any] = {}

    def profile(self, name: str) -> Profile:
        config = InferenceConfig(model=self.model, **dict(self.parameters))
        prompt = MiddlewareUse("system_prompt", {"text": self.system_prompt})
        middleware = (prompt,) if self.system_prompt else ()
        return Profile(name, self.engine, self.description, config, self.engine_options, middleware=middleware)


class _ProfileFile(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    default: str
    profiles: dict[str, _ProfileEntry] = Field(min_length=1)


def load_profiles(path: str, environment: Mapping[str, str]) -> Profiles:
    """Return the profiles of a file, or the built-in ones for an empty path. Errors: ConfigError."""
    if not path:
        return _built_in_profiles(environment)
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        msg = f"cannot read the profile file {path}: {error.strerror}"
        raise ConfigError(msg) from None
    except yaml.YAMLError as error:
        msg = f"the profile file {path} is not YAML: {error}"
        raise ConfigError(msg) from None
    try:
        file = _ProfileFile.model_validate(content)
    except ValidationError as error:
        raise ConfigError(_explain(f"the profile file {path}", error)) from None
    if file.default not in file.profiles:
        msg = f"the profile file {path} has no profile {file.default}, which it names as the default"
        raise ConfigError(msg)
    return Profiles({name: entry.profile(name) for name, entry in file.profiles.items()}, file.default)


# Environment variable, profile, what the engine is told, model. The first key that is there gives the default profile.
_KEYS = (
    ("OPENAI_API_KEY", "openai", "openai-responses", "gpt-5-mini"),
    ("ANTHROPIC_API_KEY", "anthropic", "anthropic", "claude-sonnet-4-5"),
    ("GEMINI_API_KEY", "gemini", "google", "gemini-2.5-flash"),
    ("GOOGLE_API_KEY", "gemini", "google", "gemini-2.5-flash"),
)


def _built_in_profiles(environment: Mapping[str, str]) -> Profiles:
    found: dict[str, Profile] = {}
    if base_url := environment.get("TURNWIRE_BASE_URL"):
        options = {"dialect": "openai-chat", "base_url": base_url}
        if environment.get("TURNWIRE_API_KEY"):
            options["api_key_env"] = "TURNWIRE_API_KEY"
        config = InferenceConfig(model=environment.get("TURNWIRE_MODEL", "default"))
        found["compatible"] = Profile(
            "compatible", "pydantic_ai", "the server at TURNWIRE_BASE_URL", config, engine_options=options
        )
    for variable, name, dialect, model in _KEYS:
        if environment.get(variable) and name not in found:
            options = {"dialect": dialect, "api_key_env": variable}
            config = InferenceConfig(model=environment.get("TURNWIRE_MODEL", model))
            found[name] = Profile(name, "pydantic_ai", f"uses the key in {variable}", config, engine_options=options)
    found["scripted"] = Profile("scripted", "scripted", "plays a script; no model is asked")
    return Profiles(found, next(iter(found)))


def _explain(what: str, error: ValidationError) -> str:
    lines = (f"  {'.'.join(map(str, each['loc'])) or 'file'}: {each['msg']}" for each in error.errors())
    return f"{what}: not valid\n" + "\n".join(lines)

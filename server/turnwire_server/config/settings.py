"""Settings of a server.

A setting comes from a flag, else from the environment (`TURNWIRE_` and the name in capitals), else from the file that
`--config` names (YAML), else it has its default.
"""

import argparse
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BeforeValidator, Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    CliApp,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    YamlConfigSettingsSource,
)

from turnwire_server.config.error import ConfigError, explain


def _split(value: object) -> object:
    """Let one text name several: what a flag or a variable of the environment says."""
    if isinstance(value, str):
        return [part for each in value.split(",") if (part := each.strip())]
    return value


# Several names: a list in a YAML file; elsewhere separated by commas, and a flag may be repeated.
Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]


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
    profiles: Annotated[
        Names,
        Field(
            description="YAML files with profiles, separated by commas, or the flag again; what a later one says of a"
            " profile, or of the default, wins; empty: the built-in profiles"
        ),
    ] = ()
    log_format: Annotated[Literal["console", "json"], Field(description="the form of the log lines")] = "console"
    log_level: Annotated[Literal["debug", "info", "warning", "error"], Field(description="the least to log")] = "info"
    # At the bound further inferences stay QUEUED.
    inferences_running_max: Annotated[int, Field(ge=1, description="the most inferences at a time")] = 1000
    # At the bound StartInference answers QUEUE_FULL.
    queue_depth_max: Annotated[
        int,
        Field(
            ge=1,
            description="the most inferences that wait in one session; then ENQUEUE, INTERRUPT and ROLLBACK are"
            " refused with QUEUE_FULL",
        ),
    ] = 64
    # At the bound SubscribeEvents answers TOO_MANY_WATCHERS.
    watchers_max: Annotated[int, Field(ge=1, description="the most event streams at a time")] = 10_000
    heartbeat_seconds: Annotated[
        float, Field(gt=0, description="after how long with nothing to send a stream is sent a heartbeat")
    ] = 15.0
    silence_seconds_max: Annotated[
        float,
        Field(gt=0, description="how long an engine may say nothing; then ENGINE_STALLED ends its inference"),
    ] = 600.0
    events_retention_seconds: Annotated[
        float | None,
        Field(
            gt=0,
            description="how long the events of an inference that has ended stay in the log; when nothing is said,"
            " for ever",
        ),
    ] = None
    drain_grace_seconds: Annotated[
        float, Field(ge=0, description="how long inferences may still run after SIGTERM or SIGINT")
    ] = 30.0

    @property
    def events_retention(self) -> timedelta | None:
        """How long the events of an inference that has ended stay in the log; None: for ever."""
        seconds = self.events_retention_seconds
        return None if seconds is None else timedelta(seconds=seconds)

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
        raise explain("a setting", error) from None
    except yaml.YAMLError as error:
        msg = f"{path} is not YAML: {error}"
        raise ConfigError(msg) from None

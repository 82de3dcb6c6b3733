"""The settings of MCP servers, and how secrets get into them without getting out."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from turnwire_server.tools.python import explain

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")

# Shorter values are no secrets, and would be masked in the middle of words.
SECRET_LENGTH_MIN = 6

_Texts = dict[Annotated[str, Field(min_length=1)], str]


class McpSettings(BaseModel):
    """What the settings of every MCP server may have.

    - `name`: what errors and logs call the server.
    - `prefix`: what the names of its tools begin with here. Empty: as the server calls them.
    - `only`: the tools to take, as the server calls them; all when it is left out.
    - `connect_seconds_max`: how long starting, connecting and listing may take.
    - `call_seconds_max`: the timeout of its tools; the profile's when it is left out.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1, max_length=64)
    prefix: str = Field(default="", pattern=r"^[A-Za-z0-9_-]{0,32}$")
    only: tuple[str, ...] | None = Field(default=None, min_length=1)
    connect_seconds_max: float = Field(default=30.0, gt=0, le=600)
    call_seconds_max: float | None = Field(default=None, gt=0)


class StdioSettings(McpSettings):
    """A server that is a program. Of our own environment it gets little more than PATH and HOME."""

    command: tuple[str, ...] = Field(min_length=1)
    env: _Texts = Field(default={}, repr=False)
    cwd: str | None = None


class HttpSettings(McpSettings):
    """A server behind a URL, which speaks streamable HTTP."""

    url: str = Field(pattern=r"^https?://[^\s/]", repr=False)
    headers: _Texts = Field(default={}, repr=False)


_STDIO = TypeAdapter[StdioSettings](StdioSettings)
_HTTP = TypeAdapter[HttpSettings](HttpSettings)


@dataclass(frozen=True, slots=True)
class Secrets:
    """What must not be shown."""

    values: tuple[str, ...] = field(default=(), repr=False)

    def mask(self, text: str) -> str:
        """Return a text with `***` for every secret in it."""
        for value in self.values:
            text = text.replace(value, "***")
        return text


def read_settings(
    settings: Mapping[str, object], environment: Mapping[str, str]
) -> tuple[StdioSettings | HttpSettings, Secrets]:
    """Return validated settings, with every `${VARIABLE}` in the values of `env` and `headers` filled in.

    Those values are secrets, and so is what the URL has besides the place. Errors: ValueError.
    """
    what = f"the settings of the MCP server {settings.get('name', '')}".rstrip()
    if ("command" in settings) == ("url" in settings):
        msg = f"{what}: have either `command`, for one that is started here, or `url`"
        raise ValueError(msg)
    try:
        read = (_STDIO if "command" in settings else _HTTP).validate_python(dict(settings))
    except ValidationError as error:
        raise ValueError(explain(what, error)) from None
    lookup: set[str] = set()

    def fill(where: str, texts: Mapping[str, str]) -> dict[str, str]:
        return {
            key: _VARIABLE.sub(_look_up(environment, lookup, f"{what}: {where}.{key}"), text)
            for key, text in texts.items()
        }

    if isinstance(read, StdioSettings):
        env = fill("env", read.env)
        return read.model_copy(update={"env": env}), _secrets({*env.values(), *lookup})
    headers = fill("headers", read.headers)
    query = re.split(r"[?#]", read.url, maxsplit=1)[1:]
    user = re.findall(r"^https?://([^/?#]*)@", read.url)
    return read.model_copy(update={"headers": headers}), _secrets({*headers.values(), *lookup, *query, *user})


def _look_up(environment: Mapping[str, str], found: set[str], where: str) -> Callable[[re.Match[str]], str]:
    def look_up(match: re.Match[str]) -> str:
        value = environment.get(match[1])
        if value is None:
            msg = f"{where} needs the environment variable {match[1]}, which is not set"
            raise ValueError(msg)
        found.add(value)
        return value

    return look_up


def _secrets(values: Iterable[str]) -> Secrets:
    long = {value for value in values if len(value) >= SECRET_LENGTH_MIN}
    return Secrets(tuple(sorted(long, key=len, reverse=True)))  # one that is a part of another one comes after it

"""What a profile may say about the pydantic_ai engine."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from turnwire_server.domain.errors import EngineOptionsInvalidError, EngineUnauthenticatedError
from turnwire_server.domain.profile import EngineInfo

ENGINE = "pydantic_ai"
INFO = EngineInfo(ENGINE, "OpenAI, Anthropic, Gemini, and every OpenAI-compatible server")

IDLE_SECONDS_MAX = 300.0
CONNECT_SECONDS_MAX = 10.0
_SECONDS_MAX = 86_400.0

# These say where requests go and which of the server's secrets goes with them.
ENDPOINT_OPTIONS = ("dialect", "base_url", "api_key_env", "connect_seconds_max")


class Dialect(Enum):
    """The provider APIs that the engine speaks."""

    OPENAI_CHAT = "openai-chat"
    OPENAI_RESPONSES = "openai-responses"
    ANTHROPIC = "anthropic"
    GOOGLE = "google"


# Where a key is looked for when the profile names no variable and goes to the provider's own host.
_API_KEY_ENVS: Mapping[Dialect, tuple[str, ...]] = {
    Dialect.OPENAI_CHAT: ("OPENAI_API_KEY",),
    Dialect.OPENAI_RESPONSES: ("OPENAI_API_KEY",),
    Dialect.ANTHROPIC: ("ANTHROPIC_API_KEY",),
    Dialect.GOOGLE: ("GOOGLE_API_KEY", "GEMINI_API_KEY"),
}

# What servers get that want no key: SDKs refuse to send nothing.
_NO_KEY = "none"

_SUMMARIES = ("", "auto", "concise", "detailed")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where requests go: a connection is shared by all calls that agree in these."""

    dialect: Dialect
    base_url: str = ""
    api_key_env: str = ""
    connect_seconds_max: float = CONNECT_SECONDS_MAX

    def api_key(self, environ: Mapping[str, str] = os.environ) -> str:
        """Return the key. A server other than the provider's own gets one only if `api_key_env` says which.

        Errors: EngineUnauthenticatedError, naming the variable, when it should be there and is not.
        """
        if self.base_url and not self.api_key_env:
            return _NO_KEY
        names = (self.api_key_env,) if self.api_key_env else _API_KEY_ENVS[self.dialect]
        for name in names:
            if key := environ.get(name, ""):
                return key
        msg = f"engine {ENGINE} has no key: the environment variable {' or '.join(names)} is not set"
        raise EngineUnauthenticatedError(msg, engine=ENGINE, http_status="none")


@dataclass(frozen=True, slots=True)
class Options:
    """The options of one engine call.

    `idle_seconds_max` is the longest time without any output before the call ends with ENGINE_STALLED. A provider's
    keep-alives are not output. `reasoning_summary` asks OpenAI Responses for a summary: `auto`, `concise`, `detailed`.
    """

    endpoint: Endpoint
    idle_seconds_max: float = IDLE_SECONDS_MAX
    reasoning_summary: str = ""


def parse_options(options: Mapping[str, object]) -> Options:
    """Return the options that a profile and a request set.

    Errors: EngineOptionsInvalidError with the name of the option and what it takes.
    """
    known = {*ENDPOINT_OPTIONS, "idle_seconds_max", "reasoning_summary"}
    if unknown := sorted(options.keys() - known):
        raise _invalid(f"unknown option {unknown[0]!r}; it takes {', '.join(sorted(known))}")
    dialects = [dialect.value for dialect in Dialect]
    dialect = _text(options, "dialect")
    if dialect not in dialects:
        raise _invalid(f"dialect must be one of {', '.join(dialects)}, not {dialect!r}")
    base_url = _text(options, "base_url").rstrip("/")
    if base_url and not base_url.startswith(("http://", "https://")):
        raise _invalid("base_url must be an http or https URL")
    summary = _text(options, "reasoning_summary")
    if summary not in _SUMMARIES:
        raise _invalid(f"reasoning_summary must be one of {', '.join(_SUMMARIES[1:])}, not {summary!r}")
    return Options(
        Endpoint(
            Dialect(dialect),
            base_url,
            _text(options, "api_key_env"),
            _seconds(options, "connect_seconds_max", CONNECT_SECONDS_MAX),
        ),
        idle_seconds_max=_seconds(options, "idle_seconds_max", IDLE_SECONDS_MAX),
        reasoning_summary=summary,
    )


def _text(options: Mapping[str, object], name: str) -> str:
    value = options.get(name, "")
    if not isinstance(value, str):
        raise _invalid(f"{name} must be text")
    return value


def _seconds(options: Mapping[str, object], name: str, default: float) -> float:
    value = options.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= _SECONDS_MAX:
        raise _invalid(f"{name} must be a number of seconds above 0 and at most {_SECONDS_MAX:g}")
    return float(value)


def _invalid(problem: str) -> EngineOptionsInvalidError:
    return EngineOptionsInvalidError(f"engine {ENGINE} does not understand its options: {problem}", engine=ENGINE)

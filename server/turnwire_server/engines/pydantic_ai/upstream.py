"""Connections to providers: one HTTP client per endpoint, shared by all calls."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import httpx2
from pydantic_ai.models import Model
from pydantic_ai.profiles import merge_profile

from turnwire_server.engines.pydantic_ai.options import Dialect, Endpoint

# A call that finds no free connection waits CONNECT_SECONDS_MAX for one, then fails with ENGINE_UNAVAILABLE.
CONNECTIONS_MAX = 1000
IDLE_CONNECTIONS_MAX = 100


@dataclass(frozen=True, slots=True)
class Upstream:
    """One endpoint. `key` is here so that it can be kept out of error messages."""

    dialect: Dialect
    key: str
    model: Callable[[str], Model]
    aclose: Callable[[], Awaitable[None]]

    def __repr__(self) -> str:
        return f"Upstream({self.dialect.value})"


# The responses of the present call.
_responses: ContextVar[list[httpx2.Response]] = ContextVar("responses")


@asynccontextmanager
async def closing_responses() -> AsyncGenerator[None]:
    """Close at the end what was opened within, whatever the SDK thinks of it.

    google-genai leaves a response open when it is abandoned between two chunks, until the garbage collector comes.
    """
    opened: list[httpx2.Response] = []
    token = _responses.set(opened)
    try:
        yield
    finally:
        _responses.reset(token)
        for response in opened:
            await response.aclose()


def connect(endpoint: Endpoint) -> Upstream:
    """Return the upstream of `endpoint`. Nothing is sent yet; SDKs are imported.

    Errors: EngineUnauthenticatedError when the key is missing, ImportError when the SDK is.
    """
    key = endpoint.api_key()
    http = _http_client(endpoint.connect_seconds_max)
    makers = {
        Dialect.OPENAI_CHAT: _openai_chat,
        Dialect.OPENAI_RESPONSES: _openai_responses,
        Dialect.ANTHROPIC: _anthropic,
        Dialect.GOOGLE: _google,
    }
    return Upstream(endpoint.dialect, key, makers[endpoint.dialect](endpoint.base_url or None, key, http), http.aclose)


def _http_client(connect_seconds_max: float) -> httpx2.AsyncClient:
    async def set_timeouts(request: httpx2.Request) -> None:
        # The SDKs each set their own; how long a provider may be silent is watched by the conversation.
        phases = {"connect": connect_seconds_max, "pool": connect_seconds_max, "read": None, "write": None}
        request.extensions["timeout"] = phases

    async def remember(response: httpx2.Response) -> None:
        _responses.get().append(response)

    return httpx2.AsyncClient(
        timeout=httpx2.Timeout(None, connect=connect_seconds_max, pool=connect_seconds_max),
        limits=httpx2.Limits(max_connections=CONNECTIONS_MAX, max_keepalive_connections=IDLE_CONNECTIONS_MAX),
        event_hooks={"request": [set_timeouts], "response": [remember]},
    )


def _openai_chat(base_url: str | None, key: str, http: httpx2.AsyncClient) -> Callable[[str], Model]:
    from openai import AsyncOpenAI
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.profiles.openai import OpenAIModelProfile
    from pydantic_ai.providers.openai import OpenAIProvider

    client = AsyncOpenAI(api_key=key, base_url=base_url, http_client=http, max_retries=0)
    provider = OpenAIProvider(openai_client=client)

    def model(name: str) -> Model:
        profile = OpenAIProvider.model_profile(name)
        if base_url and not (profile or {}).get("supports_thinking", False):
            # Every compatible server knows `max_tokens`; its successor is known only where reasoning models live.
            profile = merge_profile(profile, OpenAIModelProfile(openai_chat_supports_max_completion_tokens=False))
        return OpenAIChatModel(name, provider=provider, profile=profile)

    return model


def _openai_responses(base_url: str | None, key: str, http: httpx2.AsyncClient) -> Callable[[str], Model]:
    from openai import AsyncOpenAI
    from pydantic_ai.models.openai import OpenAIResponsesModel
    from pydantic_ai.providers.openai import OpenAIProvider

    client = AsyncOpenAI(api_key=key, base_url=base_url, http_client=http, max_retries=0)
    provider = OpenAIProvider(openai_client=client)
    return lambda name: OpenAIResponsesModel(name, provider=provider)


def _anthropic(base_url: str | None, key: str, http: httpx2.AsyncClient) -> Callable[[str], Model]:
    from anthropic import AsyncAnthropic
    from pydantic_ai.models.anthropic import AnthropicModel
    from pydantic_ai.providers.anthropic import AnthropicProvider

    client = AsyncAnthropic(api_key=key, base_url=base_url, http_client=http, max_retries=0)
    provider = AnthropicProvider(anthropic_client=client)
    return lambda name: AnthropicModel(name, provider=provider)


def _google(base_url: str | None, key: str, http: httpx2.AsyncClient) -> Callable[[str], Model]:
    from pydantic_ai.models.google import GoogleModel
    from pydantic_ai.providers.google import GoogleProvider

    # google-genai makes one attempt unless it is told to retry.
    provider = GoogleProvider(api_key=key, base_url=base_url, http_client=http)
    return lambda name: GoogleModel(name, provider=provider)

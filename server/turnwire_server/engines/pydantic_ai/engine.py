"""The engine itself.

Importing this module imports neither pydantic-ai nor any provider's SDK: together they take seconds.
"""

import asyncio
from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING

from turnwire_server.domain.errors import EngineOptionsInvalidError
from turnwire_server.engines.base import Emit, EngineCall, EngineResult
from turnwire_server.engines.pydantic_ai.options import ENDPOINT_OPTIONS, ENGINE, Endpoint, parse_options

if TYPE_CHECKING:
    from turnwire_server.engines.pydantic_ai.upstream import Upstream


class PydanticAIEngine:
    """Calls models through pydantic-ai's direct streaming API.

    `profiles` are the engine options of the profiles. Only the endpoints that they name are called, whatever the
    options of a request say: a client could otherwise have the server send its keys to a host of the client's choice.
    None allows every endpoint; it is for tests and for servers whose clients are the operator.

    The engine holds one HTTP client per endpoint that was ever used, until `aclose`. It never retries: who wants that
    starts a new inference.

    Errors: EngineOptionsInvalidError for a profile that is not understood.
    """

    def __init__(self, profiles: Iterable[Mapping[str, object]] | None = None) -> None:
        self._endpoints = None if profiles is None else {parse_options(options).endpoint for options in profiles}
        self._upstreams: dict[Endpoint, asyncio.Task[Upstream]] = {}

    async def aclose(self) -> None:
        """Close all connections. Calls that still run end with an error."""
        opening = list(self._upstreams.values())
        self._upstreams.clear()
        for outcome in await asyncio.gather(*opening, return_exceptions=True):
            if not isinstance(outcome, BaseException):
                await outcome.aclose()

    async def run(self, call: EngineCall, emit: Emit) -> EngineResult:
        """Make one call to a provider.

        Errors: every EngineError. Also EngineOptionsInvalidError when the packages that the dialect needs are missing.
        """
        options = parse_options(call.options)
        if self._endpoints is not None and options.endpoint not in self._endpoints:
            msg = f"engine {ENGINE} takes {', '.join(ENDPOINT_OPTIONS)} from its profile only, not from a request"
            raise EngineOptionsInvalidError(msg, engine=ENGINE)
        if not call.config.model:
            msg = f"engine {ENGINE} does not know which model to call; set config.model in the profile"
            raise EngineOptionsInvalidError(msg, engine=ENGINE)
        upstream = await self._upstream(options.endpoint)
        from turnwire_server.engines.pydantic_ai.conversation import converse

        return await converse(upstream, options, call, emit)

    async def _upstream(self, endpoint: Endpoint) -> "Upstream":
        opening = self._upstreams.get(endpoint)
        if opening is None:
            # In a thread, because the first import takes seconds; in a task of its own, because the caller may be
            # cancelled while others wait for the same endpoint.
            opening = asyncio.create_task(asyncio.to_thread(_connect, endpoint))
            opening.add_done_callback(lambda done: self._forget_failure(endpoint, done))
            self._upstreams[endpoint] = opening
        return await asyncio.shield(opening)

    def _forget_failure(self, endpoint: Endpoint, done: "asyncio.Task[Upstream]") -> None:
        if done.cancelled() or done.exception() is not None:
            self._upstreams.pop(endpoint, None)


def _connect(endpoint: Endpoint) -> "Upstream":
    try:
        import_module("turnwire_server.engines.pydantic_ai.conversation")
        from turnwire_server.engines.pydantic_ai import upstream

        return upstream.connect(endpoint)
    except ImportError as error:
        msg = f"engine {ENGINE} needs packages that are not installed ({error}): pip install 'turnwire[pydantic-ai]'"
        raise EngineOptionsInvalidError(msg, engine=ENGINE) from error

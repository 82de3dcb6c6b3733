"""One engine call: the request, the stream, the result."""

import asyncio
from collections.abc import AsyncIterator, Generator
from contextlib import AsyncExitStack, contextmanager

from pydantic_ai.direct import model_request_stream
from pydantic_ai.messages import ModelResponseStreamEvent
from pydantic_ai.models import StreamedResponse
from pydantic_ai.usage import RequestUsage

from turnwire_server.domain.errors import EngineStalledError, EngineUnauthenticatedError
from turnwire_server.domain.inference import FinishClass, Usage
from turnwire_server.engines.base import Emit, EngineCall, EngineResult
from turnwire_server.engines.pydantic_ai.failures import broken, engine_error, failed, refused
from turnwire_server.engines.pydantic_ai.messages import to_messages
from turnwire_server.engines.pydantic_ai.options import ENGINE, Options
from turnwire_server.engines.pydantic_ai.output import Output
from turnwire_server.engines.pydantic_ai.settings import to_parameters, to_settings
from turnwire_server.engines.pydantic_ai.upstream import Upstream, closing_responses


async def converse(upstream: Upstream, options: Options, call: EngineCall, emit: Emit) -> EngineResult:
    """Ask the provider, hand its output to `emit`, and return how it ended.

    The connection is closed before an error or a cancellation leaves this function.
    """
    output = Output(upstream.dialect)
    async with closing_responses(), AsyncExitStack() as stack:
        with _failures(options, upstream, streaming=False):
            stream = await _open(stack, upstream, options, call)
        events = aiter(stream)
        while True:
            with _failures(options, upstream, streaming=True):
                event = await _next(events, options)
            if event is None:
                break
            for chunk in output.take(event):
                await emit(chunk)
    finish_class = _finish_class(stream, output)
    for chunk in output.finish():
        await emit(chunk)
    return EngineResult(
        finish_class,
        usage=_usage(stream.usage),
        stop_reason=_stop_reason(stream),
        model=stream.model_name,
    )


@contextmanager
def _failures(options: Options, upstream: Upstream, *, streaming: bool) -> Generator[None]:
    try:
        yield
    except TimeoutError as error:
        raise EngineStalledError(engine=ENGINE, idle_seconds_max=f"{options.idle_seconds_max:g}") from error
    except Exception as error:
        known = engine_error(error, streaming=streaming, key=upstream.key)
        if known is None:
            raise
        # What providers say of a key that they do not accept quotes it, and causes are logged.
        raise known from None if isinstance(known, EngineUnauthenticatedError) else error


async def _open(stack: AsyncExitStack, upstream: Upstream, options: Options, call: EngineCall) -> StreamedResponse:
    model = upstream.model(call.config.model)
    opening = model_request_stream(
        model,
        to_messages(call.blocks, upstream.dialect, model.system),
        model_settings=to_settings(call.config, options, model, has_tools=bool(call.tools)),
        model_request_parameters=to_parameters(call, model),
        instrument=False,
    )
    async with asyncio.timeout(options.idle_seconds_max):
        return await stack.enter_async_context(opening)


async def _next(events: AsyncIterator[ModelResponseStreamEvent], options: Options) -> ModelResponseStreamEvent | None:
    async with asyncio.timeout(options.idle_seconds_max):
        return await anext(events, None)


def _finish_class(stream: StreamedResponse, output: Output) -> FinishClass:
    """Return how the output ended.

    Every dialect says why it stops before it ends the stream. A stream that ends without saying so was cut: pydantic-ai
    takes such an end for a normal one, so the provider's own words are looked at.

    Errors: EngineStreamBrokenError, ContentRefusedError, EngineUnavailableError.
    """
    if stream.finish_reason == "content_filter":
        raise refused()
    if not _stop_reason(stream):
        raise broken("it ended before the provider said that the output is complete")
    match stream.finish_reason:
        case "error":
            raise failed(f"the output ended with {_stop_reason(stream)}")
        case "length":
            return FinishClass.MAX_TOKENS
        case None if _stop_reason(stream) == "incomplete":
            # OpenAI Responses, without saying of what it ran out.
            return FinishClass.MAX_TOKENS
        case _:
            return FinishClass.TOOL_CALLS_PENDING if output.has_tool_calls else FinishClass.COMPLETED


def _stop_reason(stream: StreamedResponse) -> str:
    reason = (stream.provider_details or {}).get("finish_reason")
    return reason if isinstance(reason, str) else ""


def _usage(usage: RequestUsage) -> Usage:
    reasoning = usage.output_reasoning_tokens or usage.details.get("reasoning_tokens", 0)
    return Usage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cached_tokens=usage.cache_read_tokens,
        reasoning_tokens=reasoning or usage.details.get("thoughts_tokens", 0),
    )

"""The HTTP client under the MCP library, where real servers do not do what a test needs."""

import asyncio
import json
from collections.abc import AsyncIterator

import httpx2

from turnwire_server.tools.mcp_http import BROKEN, HttpClient

URL = "http://server/mcp"
CALL: dict[str, object] = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {}}


class Silent(httpx2.AsyncByteStream):
    """A stream that begins, and then says nothing for ever."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b": begun\n\n"
        await asyncio.Event().wait()


def answer(request: httpx2.Request) -> httpx2.Response:
    if json.loads(request.content).get("method") == "tools/call":
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, stream=Silent())
    return httpx2.Response(202)


async def test_a_call_is_cancelled_after_an_answer_of_ours_with_the_same_id() -> None:
    async with (
        HttpClient(transport=httpx2.MockTransport(answer)) as client,
        client.stream("POST", URL, json=CALL) as response,
        asyncio.timeout(10),
    ):
        chunks = response.aiter_bytes()
        assert await anext(chunks) == b": begun\n\n"
        await client.post(URL, json={"jsonrpc": "2.0", "id": 1, "result": {}})  # the server had asked something as 1
        cancelled = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}}
        await client.post(URL, json=cancelled)
        assert str(BROKEN).encode() in await anext(chunks)

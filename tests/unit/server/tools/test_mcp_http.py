"""The HTTP client under the MCP library, where real servers do not do what a test needs."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator

import httpx2
import pytest

from turnwire_server.tools.mcp_http import ANSWER_BYTES_MAX, BROKEN, HttpClient

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


class Pieces(httpx2.AsyncByteStream):
    """A body in pieces, which says how many were taken."""

    def __init__(self, piece: bytes, count: int, end: Exception | None = None) -> None:
        self.piece, self.count, self.end = piece, count, end
        self.taken = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for _ in range(self.count):
            self.taken += 1
            yield self.piece
        if self.end:
            raise self.end


async def answer_with(body: Pieces, **headers: str) -> httpx2.Response:
    headers = {"content-type": "application/json", **headers}
    transport = httpx2.MockTransport(lambda _: httpx2.Response(200, headers=headers, stream=body))
    async with HttpClient(transport=transport) as client, client.stream("POST", URL, json=CALL) as response:
        await response.aread()
        return response


async def test_an_answer_is_read_as_far_as_it_may_be_long() -> None:
    endless = Pieces(b" " * 65_536, 1_000_000)
    error = (await answer_with(endless)).json()["error"]
    assert (error["code"], error["message"]) == (BROKEN, f"its answer has more than {ANSWER_BYTES_MAX} bytes")
    assert endless.taken == ANSWER_BYTES_MAX // 65_536 + 1


async def test_an_answer_that_is_compressed_is_read() -> None:
    packed = gzip.compress(b'{"result": 1}')
    response = await answer_with(Pieces(packed, 1), **{"content-encoding": "gzip", "mcp-session-id": "x"})
    assert (response.json(), response.headers["mcp-session-id"]) == ({"result": 1}, "x")


@pytest.mark.parametrize(
    "body", [Pieces(b"{", 1, httpx2.ReadError("reset")), Pieces(b"no gzip", 1)], ids=["broken", "unreadable"]
)
async def test_an_answer_that_breaks_off_says_that_the_request_was_sent(body: Pieces) -> None:
    headers = {} if body.end else {"content-encoding": "gzip"}
    assert (await answer_with(body, **headers)).json()["error"]["code"] == BROKEN

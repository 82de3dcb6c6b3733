"""Images: through to the provider in every dialect, kept byte for byte, and refused where a profile has no eyes."""

import asyncio
import base64
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grpc
import pytest

from support import aimock as mock
from support.agent_world import say, script
from support.live import FAILED, SUCCEEDED, Ended, LiveServer, Session
from support.provided import Asked, Provided
from support.rpc import refusal
from turnwire.v1 import turn_pb2

pytestmark = pytest.mark.asyncio(loop_scope="session")

ENGINE_REJECTED = 105
# The smallest PNG, with all its zeros and high bytes.
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
URL = "https://images.example/cat.png?size=2"
INLINE = turn_pb2.Image(content=PNG, media_type="image/png", detail="low")
LINKED = turn_pb2.Image(url=URL, media_type="image/png", detail="high")


async def _show(session: Session, *images: turn_pb2.Image) -> Ended:
    request = session.request("")
    request.input.add(user=turn_pb2.UserBlock(text=mock.PLAIN, images=images))
    started = (await session.stubs.inference.StartInference(request)).inference
    return await session.finish(started)


def _message(asked: Asked, place: int) -> Any:
    """Return the parts of a message."""
    messages = asked.body[{"openai-responses": "input", "google": "contents"}.get(asked.dialect, "messages")]
    return messages[place]["parts" if asked.dialect == "google" else "content"]


DATA = base64.b64encode(PNG).decode()
DATA_URL = f"data:image/png;base64,{DATA}"
SENT: dict[str, list[Mapping[str, Any]]] = {
    "openai-chat": [
        {"type": "text", "text": mock.PLAIN},
        {"type": "image_url", "image_url": {"url": DATA_URL, "detail": "low"}},
        {"type": "image_url", "image_url": {"url": URL, "detail": "high"}},
    ],
    "openai-responses": [
        {"type": "input_text", "text": mock.PLAIN},
        {"type": "input_image", "image_url": DATA_URL, "detail": "low"},
        {"type": "input_image", "image_url": URL, "detail": "high"},
    ],
    # Neither Anthropic nor Gemini can be told how closely to look.
    "anthropic": [
        {"type": "text", "text": mock.PLAIN},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": DATA}},
        {"type": "image", "source": {"type": "url", "url": URL}},
    ],
    "google": [
        {"text": mock.PLAIN},
        {"inlineData": {"data": base64.urlsafe_b64encode(PNG).decode(), "mime_type": "image/png"}},
        {"fileData": {"file_uri": URL, "mime_type": "image/png"}},
    ],
}
# A file that the provider has; OpenAI's chat does not take one.
FILE = "https://generativelanguage.googleapis.com/v1beta/files/abc123"
FILES: dict[str, Mapping[str, Any]] = {
    "openai-responses": {"type": "input_image", "file_id": "file-abc123", "detail": "high"},
    "anthropic": {"type": "image", "source": {"type": "file", "file_id": "file-abc123"}},
    "google": {"fileData": {"file_uri": FILE, "mime_type": "image/png"}},
}


@pytest.mark.parametrize("dialect", mock.DIALECTS)
async def test_images_reach_the_provider_and_are_kept(provider_server: Provided, dialect: str) -> None:
    desk = await provider_server.desk(dialect)
    ended = await _show(desk.session, INLINE, LINKED)
    assert ended.inference.state == SUCCEEDED, ended.inference.error
    [asked] = desk.asked
    assert _message(asked, 0) == SENT[dialect]
    assert list(ended.turn.blocks[0].user.images) == [INLINE, LINKED]
    await desk.session.say(mock.PLAIN)
    assert _message(desk.asked[-1], 0) == SENT[dialect], "and in the next turn again"


@pytest.mark.parametrize("dialect", mock.DIALECTS)
async def test_an_image_that_the_provider_has(provider_server: Provided, dialect: str) -> None:
    desk = await provider_server.desk(dialect)
    name = FILE if dialect == "google" else "file-abc123"
    for media_type in ("image/png", ""):
        stored = turn_pb2.Image(file=name, media_type=media_type, detail="high")
        ended = await _show(desk.session, stored)
        if dialect == "openai-chat":
            assert (ended.inference.state, ended.inference.error.reason) == (FAILED, ENGINE_REJECTED)
            assert "file" in ended.inference.error.message
            assert desk.asked == []
            return
        assert ended.inference.state == SUCCEEDED, ended.inference.error
        assert list(ended.turn.blocks[ended.turn.inherited_block_count].user.images) == [stored]
        desk.session.options = {"parent": 0}
    assert _message(desk.asked[0], 0)[1] == FILES[dialect]
    assert _message(desk.asked[1], -1)[-1] == FILES[dialect], "without a media type it is an image all the same"


@pytest.mark.parametrize("dialect", mock.DIALECTS)
async def test_the_server_itself_reads_no_url(provider_server: Provided, dialect: str) -> None:
    """It is the provider that is to read it: a client must not lead the server anywhere."""
    desk = await provider_server.desk(dialect)
    came: list[asyncio.StreamWriter] = []
    trap = await asyncio.start_server(lambda _, writer: came.append(writer), "127.0.0.1", 0)
    async with trap:
        url = f"http://127.0.0.1:{trap.sockets[0].getsockname()[1]}/secret"
        ended = await _show(desk.session, turn_pb2.Image(url=url))
    assert came == []
    if dialect == "google":
        assert (ended.inference.state, ended.inference.error.reason) == (FAILED, ENGINE_REJECTED)
        assert "https" in ended.inference.error.message
    else:
        assert ended.inference.state == SUCCEEDED, ended.inference.error
        assert url in desk.asked[0].text


async def test_a_profile_without_eyes_refuses_images(provider_server: Provided) -> None:
    session = await provider_server.server.session("openai-chat-blind")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await _show(session, INLINE)
    metadata = {"profile": "openai-chat-blind", "capability": "images"}
    assert refusal(caught.value) == ("FAILED_PRECONDITION", "CAPABILITY_MISSING", metadata)
    assert (await session.say(mock.PLAIN)).text == mock.PLAIN_TEXT
    assert (await session.turn()).index == 0, "nothing was begun"


async def test_images_are_kept_byte_for_byte(tmp_path: Path) -> None:
    every = [
        INLINE,
        LINKED,
        turn_pb2.Image(file="files/ünï", media_type="image/webp"),
        turn_pb2.Image(content=bytes(range(256)) * 8000, media_type="image/x-all-bytes"),
        turn_pb2.Image(url="https://images.example/%C3%A4?q=%20&r=+"),
    ]
    async with LiveServer(tmp_path, {"scripted": {"engine": "scripted"}}) as server:
        session = await server.session("scripted")
        ended = await _show(session, *every)
        assert list(ended.turn.blocks[0].user.images) == every
        for how in (signal.SIGKILL, signal.SIGTERM):
            await server.restart(how)
            kept = (await session.turn()).blocks[0].user.images
            assert list(kept) == every
        following = await session.say("what do you see?", script=script([say("a cat")]))
        assert list(following.turn.blocks[0].user.images) == every

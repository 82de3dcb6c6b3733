"""How to test code of your own that uses turnwire: FakeServer is a real gRPC server that does what the test says.

Run it with `pytest examples/test_with_fake.py`.
"""

import pytest

from turnwire_client import Client, InferenceFailedError
from turnwire_client.testing import FakeServer


async def headline(client: Client, article: str) -> str:
    """The code under test."""
    handle = await client.start_inference(input=f"A headline for: {article}")
    try:
        return (await handle.result()).text
    except InferenceFailedError:
        return article[:20]


async def test_the_model_writes_the_headline() -> None:
    async with FakeServer() as fake, Client.connect(fake.target) as client:
        fake.reply("Sky is blue")
        assert await headline(client, "Physicists report ...") == "Sky is blue"


@pytest.mark.parametrize("reason", ["ENGINE_UNAVAILABLE", "CONTENT_REFUSED"])
async def test_without_a_model_the_article_begins(reason: str) -> None:
    async with FakeServer() as fake, Client.connect(fake.target) as client:
        fake.fail(reason)
        assert await headline(client, "Physicists report that the sky") == "Physicists report th"

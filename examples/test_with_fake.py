"""How to test code of your own that uses turnwire: FakeServer is a real gRPC server that does what the test says.

Run it with `pytest examples/test_with_fake.py`.
"""

import pytest

from turnwire.v1.inference_service_pb2 import SubmitToolResultsRequest
from turnwire.v1.tool_pb2 import Tool, ToolCall
from turnwire_client import Client, InferenceFailedError
from turnwire_client.testing import FakeServer


async def headline(client: Client, article: str) -> str:
    """The code under test."""
    handle = await client.start_inference(input=f"A headline for: {article}")
    try:
        return (await handle.result()).text
    except InferenceFailedError:
        return article[:20]


async def count_articles(client: Client, articles: dict[str, int]) -> str:
    """The code under test: it has a tool."""
    handle = await client.start_inference(
        input="How many articles are there about the sky?", tools=[Tool(name="count")]
    )
    return (await handle.run_tools({"count": lambda topic: articles.get(topic, 0)})).text


async def test_the_model_writes_the_headline() -> None:
    async with FakeServer() as fake, Client.connect(fake.target) as client:
        fake.reply("Sky is blue")
        assert await headline(client, "Physicists report ...") == "Sky is blue"


@pytest.mark.parametrize("reason", ["ENGINE_UNAVAILABLE", "CONTENT_REFUSED"])
async def test_without_a_model_the_article_begins(reason: str) -> None:
    async with FakeServer() as fake, Client.connect(fake.target) as client:
        fake.fail(reason)
        assert await headline(client, "Physicists report that the sky") == "Physicists report th"


async def test_the_model_counts_articles() -> None:
    async with FakeServer() as fake, Client.connect(fake.target) as client:
        fake.call_tools(ToolCall(id="call_1", name="count", args='{"topic": "sky"}'))
        fake.reply("Seven.")
        assert await count_articles(client, {"sky": 7}) == "Seven."
        [answer] = fake.requests_of(SubmitToolResultsRequest)
        assert answer.outcomes[0].result == "7"

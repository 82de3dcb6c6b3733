"""Asks the agent of profiles.yaml, and shows what it says and does while it happens."""

# ruff: noqa: T201 - an example prints

import asyncio
import os

from turnwire.v1.event_pb2 import Event
from turnwire_client import Client

QUESTION = "What should I pack for Lisbon, and then Oslo?"


def show(event: Event) -> None:
    if event.HasField("llm_delta"):
        print(event.llm_delta.delta, end="", flush=True)
    elif event.HasField("tool_call"):
        call = event.tool_call.call
        print(f"\n[{call.name} {call.args}]", end="", flush=True)
    elif event.HasField("tool_result"):
        use = event.tool_result.use
        print(f"[{use.tool_call}: {use.result or use.error.message}]", flush=True)
    elif event.HasField("engine_call_finished"):
        print()


async def main() -> None:
    async with Client.connect(os.environ.get("TURNWIRE_TARGET", "127.0.0.1:7450")) as client:
        handle = await client.start_inference(input=QUESTION, profile="traveller")
        async for event in handle.events():
            show(event)
        result = await handle.result()
        print(f"[{result.usage.input_tokens} tokens in, {result.usage.output_tokens} out]")


asyncio.run(main())

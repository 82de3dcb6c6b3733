"""One conversation of two turns, streamed.

Start a server first, with `turnwire serve`; then run `python examples/quickstart.py`.

With OPENAI_API_KEY, ANTHROPIC_API_KEY, GEMINI_API_KEY or TURNWIRE_BASE_URL in the server's environment a real model
answers; without, the scripted engine says your words back.
"""

# ruff: noqa: T201 - an example prints

import asyncio
import os

from turnwire_client import Client, InferenceFailedError


async def ask(client: Client, session_id: str, question: str) -> None:
    print(f"> {question}")
    handle = await client.start_inference(session_id, question)
    async for event in handle.events():  # goes on by itself when the connection breaks
        if event.HasField("llm_delta"):
            print(event.llm_delta.delta, end="", flush=True)
    try:
        result = await handle.result()
    except InferenceFailedError as failed:
        print(f"\n[{failed.reason}: {failed.message}]\n")
    else:
        print(f"\n[{result.usage.input_tokens} tokens in, {result.usage.output_tokens} out]\n")


async def main() -> None:
    async with Client.connect(os.environ.get("TURNWIRE_TARGET", "127.0.0.1:7450")) as client:
        session = await client.create_session(display_name="quickstart")
        await ask(client, session.session_id, "Why is the sky blue?")
        await ask(client, session.session_id, "And why is it red in the evening?")
        print(f"Everything is kept in session {session.session_id}.")


asyncio.run(main())

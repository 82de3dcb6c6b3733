"""Asks the same of two profiles of profiles.yaml, and shows what each of them makes of it.

Start a server first, with `turnwire serve --profiles examples/profiles.yaml` and OPENAI_API_KEY in its environment; or
without a key, see without_keys.yaml.
"""

# ruff: noqa: T201 - an example prints

import asyncio
import os

from turnwire.v1.inference_pb2 import InferenceConfig
from turnwire_client import Client
from turnwire_client.errors import OverrideNotAllowedError

QUESTION = "What is a monad?"


async def main() -> None:
    async with Client.connect(os.environ.get("TURNWIRE_TARGET", "127.0.0.1:7450")) as client:
        async for profile in client.list_profiles():
            made_of = " -> ".join(source.profile for source in profile.lineage)
            print(f"{profile.name:<8} {profile.description} ({made_of})")
        for name in ("fast", "careful"):
            result = await (await client.start_inference(input=QUESTION, profile=name)).result()
            config = result.inference.config  # what was in effect: the request's, the session's, the profile's
            print(f"\n{name}: {config.model}, {config.reasoning_effort} effort\n{result.text}")
        try:
            await client.start_inference(input=QUESTION, profile="careful", config=InferenceConfig(model="gpt-5-nano"))
        except OverrideNotAllowedError as refused:
            print(f"\nA request may not change the {refused.metadata['override']} of {refused.metadata['profile']}.")


asyncio.run(main())

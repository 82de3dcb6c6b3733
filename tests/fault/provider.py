"""Sessions on a provider's API that nobody here wrote, with a network in between that hangs, breaks off and garbles.

The provider is aimock (tests/support/aimock.py). Where it is not there, its clients are left out.
"""

import json
import shutil
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

from fault.ledger import Asked
from fault.link import Life
from fault.plays import Part, Play
from fault.proxy import Proxy
from fault.sprinter import Sprinter
from fault.stage import Stage
from fault.witness import Witness
from support import aimock
from turnwire.v1 import error_reason_pb2 as reasons

# The profiles that patrons use, and what they ask their provider for: one thing per session, since aimock answers to
# the first word that it knows, wherever in the last messages it is. Both are dialects of one SDK: each server imports
# it anew, and each of the others takes seconds.
ORDERS: Mapping[str, tuple[str, tuple[Part, ...]]] = {
    "openai-chat": (aimock.PLAIN, (Part("llm_text", aimock.PLAIN_TEXT),)),
    "openai-responses": (
        aimock.THINKING,
        (Part("reasoning", aimock.THOUGHT), Part("llm_text", aimock.THINKING_TEXT)),
    ),
}

# How long an order may take: the first one of a server waits for the SDK, and a provider may hang for a while.
ORDER_SECONDS = 60.0

# How an inference may end whose provider could not be reached, or not understood.
EXCUSED = frozenset({reasons.ERROR_REASON_ENGINE_UNAVAILABLE, reasons.ERROR_REASON_ENGINE_STREAM_BROKEN})


@dataclass(frozen=True, slots=True)
class Provider:
    """A provider behind a network, and the file with the profiles that lead there."""

    proxy: Proxy
    profiles: Path

    @staticmethod
    def is_possible() -> str:
        """Return why there can be none here; empty, if there can."""
        is_there = shutil.which("node") and aimock.CLI.is_file()
        return "" if is_there else "aimock is not here: it takes node, and `make deps` with npm"


@asynccontextmanager
async def running_provider(folder: Path) -> AsyncGenerator[Provider]:
    """Start a provider, and write the profiles."""
    with aimock.running_aimock() as server:
        async with Proxy(f"127.0.0.1:{server.port}") as proxy:
            profiles: dict[str, object] = {"scripted": {"engine": "scripted"}}
            for dialect in ORDERS:
                options = server.options(dialect, proxy.port)
                profiles[dialect] = {
                    "engine": "pydantic_ai",
                    "model": server.model(dialect),
                    "engine_options": options,
                }
            file = folder / "profiles.yaml"
            file.write_text(json.dumps({"default": "scripted", "profiles": profiles}), "utf-8")  # JSON is YAML
            yield Provider(proxy, file)


class Patron(Sprinter):
    """A client that asks a provider, again and again for the same, and does not always wait for it."""

    def __init__(self, stage: Stage, witness: Witness, profile: str) -> None:
        super().__init__(stage, witness)
        self._random = Random(f"{stage.seed} patron {profile}")
        self._profile = profile

    def _draw(self, number: int) -> Play:
        text, parts = ORDERS[self._profile]
        return Play("provided", parts, text=f"{text}, {number}", profile=self._profile, excused=EXCUSED)

    async def _run(self, asked: Asked, life: Life) -> None:
        if not asked.inference_id:
            await self.send(asked, life)
        if asked.inference_id and self._random.random() < 0.15:
            await self.look_in(asked, life, self._random.uniform(0, 0.05))
            await self.cancel(asked, life)
        await self.wait(asked, life, ORDER_SECONDS)
        await self._stage.link.pause(self._random.uniform(0.05, 0.3))

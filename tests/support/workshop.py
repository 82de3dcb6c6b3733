"""Where the tools of tests are executed: each execution comes here, and is answered as the test says.

    async with workshop() as shop:
        server = LiveServer(folder, profiles, environment=shop.environment)   # tools: [{python: support.gadgets}]
        ...
        job = await shop.take("charge")       # it is being executed now
        job.answer({"paid": 3})

What came is counted here, so it outlives the server; and a job knows when the tool that asked was stopped or killed.
"""

import asyncio
import json
import os
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

PORT_VARIABLE = "TURNWIRE_TEST_WORKSHOP"

Answer = Callable[[Mapping[str, Any]], object]


@dataclass(slots=True)
class Job:
    """One execution of a tool. `gone` is set once whoever asked for it is not there any more."""

    tool: str
    args: Mapping[str, Any]
    writer: asyncio.StreamWriter
    is_taken: bool = False
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    def answer(self, result: object) -> None:
        """Have the tool return something."""
        self._send({"result": result})

    def fail(self, message: str) -> None:
        """Have the tool fail."""
        self._send({"failure": message})

    def _send(self, message: Mapping[str, object]) -> None:
        self.writer.write(json.dumps(message).encode() + b"\n")


@dataclass(slots=True)
class Workshop:
    """What came, in order. `answers` has what tools return by themselves; the others wait for the test."""

    port: int = 0
    answers: dict[str, Answer] = field(default_factory=dict[str, Answer])
    jobs: list[Job] = field(default_factory=list[Job])
    _came: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def environment(self) -> dict[str, str]:
        """What the process that has the tools needs."""
        return {PORT_VARIABLE: str(self.port)}

    @property
    def executed(self) -> list[str]:
        """The names of the tools that were executed, in order."""
        return [job.tool for job in self.jobs]

    async def take(self, tool: str) -> Job:
        """Return the next execution of a tool that was not taken yet, once there is one."""
        async with asyncio.timeout(30):
            while not (waiting := [job for job in self.jobs if job.tool == tool and not job.is_taken]):
                self._came.clear()
                await self._came.wait()
        waiting[0].is_taken = True
        return waiting[0]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take one job, until whoever asked is gone."""
        said = json.loads(await reader.readline())
        job = Job(said["tool"], said["args"], writer)
        self.jobs.append(job)
        self._came.set()
        if answer := self.answers.get(job.tool):
            job.answer(answer(job.args))
        try:
            await reader.read()
        except ConnectionError:
            pass
        finally:
            job.gone.set()
            writer.close()


@asynccontextmanager
async def workshop(**answers: Answer) -> AsyncGenerator[Workshop]:
    """Open a workshop; `answers` are the tools that it answers by itself."""
    shop = Workshop(answers=answers)
    serving: set[asyncio.Task[None]] = set()

    def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(asyncio.create_task(shop.serve(reader, writer)))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    shop.port = int(server.sockets[0].getsockname()[1])
    try:
        yield shop
    finally:
        server.close()
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)
        await server.wait_closed()


async def ask(tool: str, **args: object) -> object:
    """Have a job done in the workshop that the environment names. What a tool of tests does."""
    from turnwire_server.tools.function import ToolFailure

    reader, writer = await asyncio.open_connection("127.0.0.1", int(os.environ[PORT_VARIABLE]))
    try:
        writer.write(json.dumps({"tool": tool, "args": args}).encode() + b"\n")
        answer = json.loads(await reader.readline())
    finally:
        writer.close()
    if "failure" in answer:
        raise ToolFailure(answer["failure"])
    return answer["result"]

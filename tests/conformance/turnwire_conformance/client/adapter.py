"""The adapter of an SDK, as a process that is told things and answers them."""

import asyncio
import contextlib
from collections.abc import Sequence

from google.protobuf import json_format

from turnwire.testing.v1.client_conformance_pb2 import ClientAnswer, ClientCommand

# The longest line of an adapter: events of 256 KiB, a few of them, in JSON.
LINE_BYTES_MAX = 64 * 1024 * 1024

# How long an adapter that is told to end may take.
END_SECONDS_MAX = 5.0


class AdapterError(Exception):
    """The adapter did not answer, or its answer is none."""


class Adapter:
    """One adapter process. It is started when it is first told something, and anew after it was killed."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = list(command)
        self._process: asyncio.subprocess.Process | None = None

    async def tell(self, command: ClientCommand, seconds_max: float) -> ClientAnswer:
        """Tells the adapter what to do, and returns its answer.

        Raises AdapterError when none comes in time, when the adapter has ended, or when what it says is no
        ClientAnswer; then it is killed.
        """
        try:
            return await asyncio.wait_for(self._ask(command), seconds_max)
        except TimeoutError:
            await self.kill()
            raise AdapterError(f"no answer to {_what(command)} within {seconds_max:g} s") from None
        except (OSError, ValueError, json_format.ParseError) as error:
            await self.kill()
            raise AdapterError(f"{_what(command)}: {error}") from error

    async def close(self) -> None:
        """Ends the adapter: closes its stdin, and kills it if that does not end it."""
        process = self._process
        if process is None or process.stdin is None:
            return
        process.stdin.close()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), END_SECONDS_MAX)
        await self.kill()

    async def kill(self) -> None:
        """Kills the adapter, if it runs."""
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def _ask(self, command: ClientCommand) -> ClientAnswer:
        if self._process is None:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=LINE_BYTES_MAX,
            )
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            raise ValueError("the adapter has no pipes")
        stdin.write(json_format.MessageToJson(command, indent=None).encode() + b"\n")
        await stdin.drain()
        line = await stdout.readline()
        if not line.endswith(b"\n"):
            raise ValueError(f"the adapter has ended with {await self._process.wait()}")
        return json_format.Parse(line.decode(), ClientAnswer(), ignore_unknown_fields=False)


def _what(command: ClientCommand) -> str:
    return command.WhichOneof("command") or "nothing"

"""MCP servers for tests: two that nobody here wrote, and a scripted one.

`everything` is the npm package @modelcontextprotocol/server-everything, which `make deps` installs; mcp-server-time
belongs to the development environment.
"""

import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EVERYTHING = ROOT / "third_party/mcp-server/node_modules/@modelcontextprotocol/server-everything/dist/index.js"
START_SECONDS_MAX = 30
START_TRIES = 5

TIME = (sys.executable, "-m", "mcp_server_time", "--local-timezone", "UTC")
SCRIPTED = (sys.executable, "-S", str(Path(__file__).with_name("mcp_scripted.py")))


def everything(transport: str) -> tuple[str, ...]:
    """Return the command that starts server-everything; the test is skipped where it is not, and fails in CI."""
    node = shutil.which("node")
    if node is None or not EVERYTHING.is_file():
        reason = "server-everything is not here: it takes node, and `make deps` with npm"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return (node, str(EVERYTHING), transport)


class HttpServer:
    """server-everything behind a URL. It can be killed, and started again in the same place."""

    def __init__(self) -> None:
        self._command = everything("streamableHttp")
        self._stack = ExitStack()
        self.port = 0
        for _ in range(START_TRIES):  # whoever takes the port before the server does: another one is tried
            self.port = self.port or _free_port()
            if self.start():
                return
            self.port = 0
        msg = f"server-everything did not start: {' '.join(self._command)}"
        raise RuntimeError(msg)

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}/mcp"

    def start(self) -> bool:
        """Start it; return whether it listens."""
        environment = {**os.environ, "PORT": str(self.port)}
        process = self._stack.enter_context(
            subprocess.Popen(
                self._command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
            )
        )
        self._stack.callback(process.kill)
        assert process.stderr is not None
        timer = threading.Timer(START_SECONDS_MAX, process.kill)
        timer.start()
        try:
            return any("listening on port" in line for line in process.stderr)
        finally:
            timer.cancel()

    def kill(self) -> None:
        """End it, and no other process, at once."""
        self._stack.close()


@contextmanager
def everything_over_http() -> Generator[HttpServer]:
    """Start server-everything on a free port."""
    server = HttpServer()
    try:
        yield server
    finally:
        server.kill()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

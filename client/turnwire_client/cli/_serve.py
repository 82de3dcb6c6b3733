"""Starting a server: in place of this process, or as a child of it."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Self

import typer

from turnwire_client.cli._failure import print_error
from turnwire_client.cli._output import plain, stderr

# What the extra `server` brings along.
NEEDED = (
    "turnwire_server",
    "grpc_health",
    "grpc_reflection",
    "protovalidate",
    "pydantic_settings",
    "structlog",
    "yaml",
)

READY = "listening on "
START_SECONDS_MAX = 30.0
STOP_SECONDS_MAX = 40.0


def require_server(*, as_json: bool = False) -> None:
    """Exits with what to do when the server is not installed."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if not missing:
        return
    advice = (
        f"Missing: {', '.join(missing)}. Install it from a clone of the repository with: pip install '.[server]'"
        " (once turnwire is published: pip install 'turnwire[server]')"
    )
    if as_json:
        print_error("FAILED_PRECONDITION", f"the server is not installed here. {advice}")
    else:
        stderr.print("[bold red]error[/] the server is not installed here")
        stderr.print(plain(advice))
    raise typer.Exit(1)


def serve(arguments: Sequence[str]) -> None:
    """Becomes the server."""
    require_server()
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", "turnwire_server", *arguments])


class LocalServer:
    """A server in a child process, on a free port of 127.0.0.1, with its log in a file. `target` is its address."""

    def __init__(self, store: Path, log: Path, *, as_json: bool) -> None:
        self._log = log
        self._as_json = as_json
        self._store = store
        self.target = ""

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "turnwire_server", "--listen", "127.0.0.1:0", "--store", str(self._store)]
        # The caller's settings are for the caller's server. A group of its own, so that Ctrl-C reaches only us.
        environment = {key: value for key, value in os.environ.items() if not key.startswith("TURNWIRE_")}
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment, start_new_session=True
            )
        self.target = self._wait_ready()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def _wait_ready(self) -> str:
        pipe = self._process.stdout
        assert pipe is not None
        timer = threading.Timer(START_SECONDS_MAX, self._process.kill)
        timer.start()
        try:
            line = pipe.readline()
        except BaseException:
            self._stop()
            raise
        finally:
            timer.cancel()
        if not line.startswith(READY):
            self._stop()
            tail = "\n".join(self._log.read_text().splitlines()[-10:])
            if self._as_json:
                print_error("UNAVAILABLE", f"the server did not start: {tail}")
            else:
                stderr.print(f"[bold red]error[/] the server did not start; the end of {self._log}:")
                stderr.print(tail, markup=False)
            raise typer.Exit(1)
        return line.removeprefix(READY).strip()

    def _stop(self) -> None:
        """SIGTERM, which drains; SIGKILL for a server that does not end then."""
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

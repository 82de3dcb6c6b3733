"""A real server in a process of its own: started, killed and started again by tests."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

# The folder of the tests, and what lets a server's process import from there what it is to run or to use.
TESTS = Path(__file__).resolve().parents[1]
WITH_TESTS = {"PYTHONPATH": os.pathsep.join(filter(None, (str(TESTS), os.environ.get("PYTHONPATH", ""))))}

START_SECONDS = 30
STOP_SECONDS = 30


class ServerProcess:
    """`python -m turnwire_server` on a free port of 127.0.0.1. Its log lines are kept in `log`.

    `program` is what Python runs, if it is something else that takes the same arguments.
    """

    def __init__(
        self,
        arguments: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        program: Sequence[str] = ("-m", "turnwire_server"),
    ) -> None:
        self._arguments = tuple(arguments)
        self._program = tuple(program)
        self._environment = {**os.environ, **(environment or {}), "PYTHONUNBUFFERED": "1"}
        self.address = ""
        self.log: list[str] = []

    def start(self) -> "ServerProcess":
        """Start, and return once it listens."""
        self.launch()
        return self.wait_until_listening()

    def launch(self) -> None:
        """Start, and return at once."""
        self._process = subprocess.Popen(
            [
                sys.executable,
                *self._program,
                "--listen",
                "127.0.0.1:0",
                "--log-format",
                "json",
                *self._arguments,
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self._environment,
        )
        assert self._process.stderr is not None
        self._reader = threading.Thread(target=self.log.extend, args=(self._process.stderr,), daemon=True)
        self._reader.start()

    def wait_until_listening(self) -> "ServerProcess":
        """Return once it listens. Errors: RuntimeError, if it has ended."""
        assert self._process.stdout is not None
        timer = threading.Timer(START_SECONDS, self._process.kill)
        timer.start()
        line = self._process.stdout.readline()
        timer.cancel()
        if not line.startswith("listening on "):
            self._close()
            msg = f"the server did not start: {line!r}\n{''.join(self.log)}"
            raise RuntimeError(msg)
        self.address = line.removeprefix("listening on ").strip()
        return self

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    def read_log_until(self, text: str, seconds: float = 10.0) -> str:
        """Return what it has logged once that has a text. Errors: AssertionError, if it does not in time."""
        give_up = time.monotonic() + seconds
        while text not in (log := "".join(self.log)):
            assert time.monotonic() < give_up, f"no {text} in\n{log}"
            time.sleep(0.02)
        return log

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it as a crash would: SIGKILL."""
        self._process.kill()
        self._close()

    def stop(self) -> int:
        """End it as an operator would: SIGTERM. Return its exit code."""
        self._process.terminate()
        return self.wait()

    def wait(self) -> int:
        """Wait until it has ended; return its exit code."""
        try:
            return self._close()
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._close()
            raise

    def _close(self) -> int:
        code = self._process.wait(STOP_SECONDS)
        self._reader.join(STOP_SECONDS)
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe:
                pipe.close()
        return code

    def __enter__(self) -> "ServerProcess":
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.returncode is None:
            self._process.terminate()
            self.wait()


def server_on(path: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> ServerProcess:
    """Return a server, not started yet, on a SQLite file."""
    return ServerProcess(("--store", str(path), *arguments), environment)

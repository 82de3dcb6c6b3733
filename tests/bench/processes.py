"""Server processes on the core of the servers, and what they take of it: CPU time and memory."""

import os
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType

from bench.machine import PEERS_PYTHON, ROOT, SERVER_CORE

START_SECONDS = 60
STOP_SECONDS = 15

# What a server process finds without being installed: our own code, and this package.
_PATH = os.pathsep.join(
    str(ROOT / each) for each in ("tests", "server", "client", "gen/python", "gen/betterproto", "tests/conformance")
)
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


class BenchProcess:
    """A server in a process of its own. `module` is what Python runs; it says `listening on HOST:PORT` once it does."""

    def __init__(self, module: str, *arguments: str, is_peer: bool = False) -> None:
        python = str(PEERS_PYTHON) if is_peer else sys.executable
        self._command = ("taskset", "-c", str(SERVER_CORE), python, "-m", module, *arguments)
        self._errors: list[str] = []
        self._is_started = False
        self.address = ""

    def start(self) -> None:
        """Start it, and return once it listens. Errors: RuntimeError with what it said."""
        environment = {**os.environ, "PYTHONPATH": _PATH, "PYTHONUNBUFFERED": "1"}
        self._process = subprocess.Popen(
            self._command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )
        self._is_started = True
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._reader = threading.Thread(target=self._errors.extend, args=(self._process.stderr,), daemon=True)
        self._reader.start()
        timer = threading.Timer(START_SECONDS, self._process.kill)
        timer.start()
        line = self._process.stdout.readline()
        timer.cancel()
        if not line.startswith("listening on "):
            self.stop()
            msg = f"{self._command} did not start: {line!r}\n{self.log}"
            raise RuntimeError(msg)
        self.address = line.removeprefix("listening on ").strip()

    def stop(self) -> None:
        """End it at once, if it was started."""
        if not self._is_started:
            return
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait(STOP_SECONDS)
        self._reader.join(STOP_SECONDS)
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe:
                pipe.close()

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    @property
    def log(self) -> str:
        """The last lines that it wrote to standard error."""
        return "".join(self._errors[-20:])

    def cpu_seconds(self) -> float:
        """Return the CPU time that it has used, user and system, in seconds; its resolution is 10 ms."""
        fields = self._read("stat").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS_PER_SECOND

    def pss_kib(self) -> int:
        """Return the memory that it takes, its share of what it shares with others, in KiB."""
        return self._kib("smaps_rollup", "Pss:")

    def peak_kib(self) -> int:
        """Return the most memory that it ever had, resident, in KiB."""
        return self._kib("status", "VmHWM:")

    def _kib(self, name: str, field: str) -> int:
        return next(int(line.split()[1]) for line in self._read(name).splitlines() if line.startswith(field))

    def _read(self, name: str) -> str:
        return Path(f"/proc/{self._process.pid}/{name}").read_text("utf-8")

    def __enter__(self) -> "BenchProcess":
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def our_server(store: str, *arguments: str, module: str = "turnwire_server") -> BenchProcess:
    """Return our server, not started yet; `store` is a file, or `memory`."""
    fixed = ("--listen", "127.0.0.1:0", "--log-level", "error", "--drain-grace-seconds", "0")
    return BenchProcess(module, *fixed, "--store", store, *arguments)


def peer(name: str) -> BenchProcess:
    """Return the server of a peer, not started yet. `bare` needs nothing but grpcio and runs in our environment."""
    return BenchProcess(f"bench.peers.{name}", is_peer=name != "bare")

"""h2load as the client for rates: it receives whatever a server can send, and says when each stream ended.

One process per distinct request, because h2load posts one body; each of its clients has a connection of its own.
"""

import re
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.events import grpc_message

# How long any load may take before it is given up.
SECONDS_MAX = 120

_TRAFFIC = re.compile(r"traffic: .* \((\d+)\) data")
_TOTALS = re.compile(r"requests: (\d+) total, .* (\d+) succeeded, (\d+) failed")


class LoadError(Exception):
    """Not every request got its whole answer, so there is no figure."""


@dataclass(frozen=True, slots=True)
class Posted:
    """A request that is posted: over gRPC, or over HTTP/1.1 with `is_http1`.

    `clients` connections make `requests` requests in all, one at a time each; 0 means one each.
    """

    path: str
    body: bytes
    clients: int = 1
    requests: int = 0
    is_http1: bool = False


@dataclass(frozen=True, slots=True)
class Load:
    """What came of a load. Times are wall clock times, in seconds; `data_bytes` is the payload of all answers.

    `first_request` and `last_request` are when the first and the last request began, `end` is when the last one ended;
    `latencies` are how long each took, in seconds, the quickest first.
    """

    data_bytes: int
    first_request: float
    last_request: float
    end: float
    latencies: tuple[float, ...] = ()


def run_h2load(address: str, posted: Sequence[Posted]) -> Load:
    """Post everything at once, and return when every answer is complete. Errors: LoadError."""
    with tempfile.TemporaryDirectory(prefix="turnwire-h2load-") as name:
        folder, processes = Path(name), list[subprocess.Popen[str]]()
        try:
            for number, each in enumerate(posted):
                body, log = folder / f"{number}.body", folder / f"{number}.log"
                body.write_bytes(each.body if each.is_http1 else grpc_message(each.body))
                command = _command(address, each, body, log)
                processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
            outputs = [process.communicate(timeout=SECONDS_MAX)[0] for process in processes]
        except subprocess.TimeoutExpired:
            raise LoadError(f"not every answer was complete after {SECONDS_MAX} s") from None
        finally:
            for process in processes:
                if process.poll() is None:
                    process.kill()
                    process.communicate()
        lines = [line for log in folder.glob("*.log") for line in log.read_text("utf-8").splitlines()]
    data_bytes = sum(map(_data_bytes, outputs))
    rows = [[int(field) for field in line.split("\t")[:3]] for line in lines]  # begin, HTTP status, duration
    return Load(
        data_bytes,
        min(row[0] for row in rows) / 1e6,
        max(row[0] for row in rows) / 1e6,
        max(row[0] + row[2] for row in rows) / 1e6,
        tuple(sorted(row[2] / 1e6 for row in rows)),
    )


def _command(address: str, posted: Posted, body: Path, log: Path) -> list[str]:
    kind = ["--h1"] if posted.is_http1 else ["-H", "content-type: application/grpc", "-H", "te: trailers"]
    count = ["-n", str(posted.requests or posted.clients), "-c", str(posted.clients), "-m", "1"]
    return ["h2load", *count, *kind, "-d", str(body), f"--log-file={log}", f"http://{address}{posted.path}"]


def _data_bytes(output: str) -> int:
    totals, traffic = _TOTALS.search(output), _TRAFFIC.search(output)
    if not totals or not traffic or totals[1] != totals[2] or totals[3] != "0":
        raise LoadError(f"h2load did not get every answer:\n{output}")
    return int(traffic[1])

"""Says what a commit takes here: the p50 and the p99 of small SQLite commits, as our store does them, one at a time.

python -m bench.commit_probe FILE COUNT        prints both, in seconds
"""

import sqlite3
import statistics
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

from bench.events import EVENT_BYTES
from bench.machine import ROOT, SERVER_CORE

# The time between two commits: about what there is between the events of a hundred sessions, batched.
PACE_SECONDS = 0.002


def measure_commit(folder: Path, count: int) -> tuple[float, float]:
    """Return p50 and p99 of a commit in seconds, measured on the core of the servers, on the disk of `folder`."""
    command = ("taskset", "-c", str(SERVER_CORE), sys.executable, "-m", "bench.commit_probe")
    file = folder / "commit-probe.db"
    done = subprocess.run([*command, file, str(count)], capture_output=True, text=True, check=True, cwd=ROOT / "tests")
    p50, p99 = done.stdout.split()
    return float(p50), float(p99)


def commit_seconds(file: Path, count: int) -> list[float]:
    """Commit `count` times, and return what each took in seconds."""
    taken: list[float] = []
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("CREATE TABLE IF NOT EXISTS chunk (key INTEGER PRIMARY KEY, frames BLOB NOT NULL) STRICT")
        for _ in range(count):
            time.sleep(PACE_SECONDS)
            began = time.perf_counter()
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("INSERT INTO chunk (frames) VALUES (?)", (b"x" * EVENT_BYTES,))
            connection.execute("COMMIT")
            taken.append(time.perf_counter() - began)
    return taken


if __name__ == "__main__":
    cuts = statistics.quantiles(commit_seconds(Path(sys.argv[1]), int(sys.argv[2])), n=100)
    print(cuts[49], cuts[98])

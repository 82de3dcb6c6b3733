"""What the figures were measured on: cores, versions, commit."""

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# The environment of the peers; their packages are no dependencies of ours.
PEERS_PYTHON = ROOT / ".venv-bench" / "bin" / "python"

_CORES = sorted(os.sched_getaffinity(0))

# Servers run on one core and what loads them on another; on a machine with one core they share it.
SERVER_CORE, LOAD_CORE = _CORES[0], _CORES[-1]


def make_scratch() -> "tempfile.TemporaryDirectory[str]":
    """Make a folder for stores, on the disk that the repository is on: /tmp may be none at all."""
    build = ROOT / "build"
    build.mkdir(exist_ok=True)
    return tempfile.TemporaryDirectory(prefix="bench-", dir=build)


def take_load_core() -> None:
    """Have this process, and what it starts from now on, run on the core of the load."""
    os.sched_setaffinity(0, {LOAD_CORE})


def missing_h2load() -> str:
    """Return what to do when h2load is missing; empty if it is there."""
    if shutil.which("h2load"):
        return ""
    return "h2load is missing; it is in Debian's and Ubuntu's nghttp2-client: apt-get install nghttp2-client"


def missing_peers() -> str:
    """Return what to do when the environment of the peers is missing; empty if it is there."""
    return "" if PEERS_PYTHON.exists() else f"{PEERS_PYTHON.parent.parent.name} is missing: make bench installs it"


def describe() -> dict[str, str]:
    """Return machine, versions and commit, for the report."""
    found = {
        "cpu": _cpu(),
        "cores": f"{len(_CORES)} (server on {SERVER_CORE}, load on {LOAD_CORE})",
        "kernel": platform.release(),
        "file system": _first_line("stat", "--file-system", "--format=%T", str(ROOT)),
        "python": platform.python_version(),
        "h2load": _first_line("h2load", "--version"),
        "commit": _first_line("git", "describe", "--always", "--dirty", "--abbrev=12"),
    }
    found |= {name: version(name) for name in ("grpcio", "protobuf")}
    found["sqlite"] = _first_line(sys.executable, "-c", "import sqlite3; print(sqlite3.sqlite_version)")
    if PEERS_PYTHON.exists():
        for name in ("a2a-sdk", "fastapi", "uvicorn", "grpcio"):
            code = f"from importlib.metadata import version; print(version({name!r}))"
            found[f"peers' {name}"] = _first_line(str(PEERS_PYTHON), "-c", code)
    return found


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _first_line(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    except (OSError, subprocess.CalledProcessError):
        return "not known"
    return done.stdout.partition("\n")[0].strip()

"""Fail if ``gen/`` is not what ``buf generate`` writes from ``proto/`` now.

The contract is generated into a scratch folder and compared byte by byte with what is committed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder by its relative path, without the interpreter's caches."""
    files = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def differences(fresh: dict[str, bytes], committed: dict[str, bytes]) -> list[str]:
    """One line per file that is missing, stale or not generated at all."""
    lines = [f"missing: {name}" for name in fresh.keys() - committed.keys()]
    lines += [f"not generated: {name}" for name in committed.keys() - fresh.keys()]
    lines += [f"stale: {name}" for name in fresh.keys() & committed.keys() if fresh[name] != committed[name]]
    return sorted(lines)


def check(fresh: Path, committed: Path) -> int:
    """Compare two folders, say what differs and return the exit status."""
    lines = differences(contents(fresh), contents(committed))
    if lines:
        print("gen/ is not what proto/ generates; run `make generate` and commit the result:", file=sys.stderr)
        print("\n".join(f"  {line}" for line in lines), file=sys.stderr)
        return 1
    print("gen/ is what proto/ generates")
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Generate, compare and return the exit status."""
    parser = argparse.ArgumentParser(description="Compare gen/ with what buf generate writes now.")
    parser.add_argument("--committed", type=Path, default=ROOT / "gen", help="the folder to check")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        subprocess.run(["buf", "generate", "--output", scratch], cwd=ROOT, check=True)
        return check(Path(scratch, "gen"), options.committed)


if __name__ == "__main__":
    sys.exit(main())

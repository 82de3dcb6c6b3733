"""Build the wheel and prove that it stands on its own.

It must hold our four top-level packages and nothing else: another project's ``buf`` or ``google`` in
our wheel would overwrite that project's files. Then the base alone, without any extra, is installed
with the oldest dependencies we support into an empty environment, and must import and answer
``turnwire --help``.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = frozenset({"turnwire", "turnwire_client", "turnwire_models", "turnwire_server"})
TYPED = (
    "turnwire/v1/py.typed",
    "turnwire_client/py.typed",
    "turnwire_models/py.typed",
    "turnwire_server/py.typed",
)
SMOKE = """
import sys
import turnwire_client
from turnwire.v1 import inference_service_pb2, inference_service_pb2_grpc, session_service_pb2_grpc
loaded = {name.partition(".")[0] for name in sys.modules}
assert not loaded & {"buf", "turnwire_server", "pydantic"}, loaded
"""


def build(root: Path, out: Path) -> Path:
    """Build the wheel of the repository into a folder and return its path."""
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(out)]
    subprocess.run(command, cwd=root, check=True, stdout=subprocess.DEVNULL)
    return next(out.glob("*.whl"))


def problems(names: list[str]) -> list[str]:
    """What is wrong with a wheel that holds files of these names."""
    tops = {name.partition("/")[0] for name in names}
    extra = {top for top in tops - PACKAGES if not top.endswith(".dist-info")}
    lines = [f"{top}/ is not ours to ship" for top in sorted(extra)]
    lines += [f"{package}/ is missing" for package in sorted(PACKAGES - tops)]
    lines += [f"{marker} is missing" for marker in TYPED if marker not in names]
    return lines


def try_out(wheel: Path, lock: Path, scratch: Path) -> None:
    """Install the wheel and the locked dependencies into an empty environment, and use it."""
    environment = scratch / "venv"
    venv.create(environment, with_pip=False)
    python = environment / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--require-hashes", "--requirement", str(lock)], check=True)
    subprocess.run([*pip, "--no-deps", str(wheel)], check=True)
    subprocess.run([str(python), "-I", "-c", SMOKE], cwd=scratch, check=True)
    command = [str(python.with_name("turnwire")), "--help"]
    subprocess.run(command, cwd=scratch, check=True, stdout=subprocess.DEVNULL)


def main(arguments: list[str] | None = None) -> int:
    """Build, look inside, try out; return the exit status."""
    parser = argparse.ArgumentParser(description="Build the wheel and check that it stands on its own.")
    parser.add_argument("--root", type=Path, default=ROOT, help="the repository to build")
    parser.add_argument("--lock", type=Path, default=ROOT / "requirements" / "oldest.lock", help="what to install")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch_name:
        scratch = Path(scratch_name)
        wheel = build(options.root, scratch)
        with zipfile.ZipFile(wheel) as archive:
            found = problems(archive.namelist())
        if found:
            print("\n".join(f"{wheel.name}: {line}" for line in found), file=sys.stderr)
            return 1
        try_out(wheel, options.lock, scratch)
        print(f"{wheel.name}: stands on its own")
    return 0


if __name__ == "__main__":
    sys.exit(main())

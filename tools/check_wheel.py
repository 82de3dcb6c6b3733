"""Build the wheel and prove that it stands on its own.

It must hold our five top-level packages and nothing else: another project's ``buf`` or ``google`` in
our wheel would overwrite that project's files. Then the base alone, without any extra, is installed
with the oldest dependencies we support into an empty environment, and must import, answer
``turnwire --help`` and list the cases for clients. From there ``turnwire conformance`` proves a
server that runs from the same wheel, with the dependencies of the development environment.
"""

from __future__ import annotations

import argparse
import os
import select
import subprocess
import sys
import sysconfig
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = frozenset({"turnwire", "turnwire_client", "turnwire_conformance", "turnwire_models", "turnwire_server"})
TYPED = (
    "turnwire/v1/py.typed",
    "turnwire_client/py.typed",
    "turnwire_conformance/py.typed",
    "turnwire_models/py.typed",
    "turnwire_server/py.typed",
)
SERVE = ("-m", "turnwire_server", "--listen", "127.0.0.1:0", "--store", "memory", "--log-level", "error")
LISTENING = "listening on "

# How long a server may take to start, and the suite to run, on a machine that is busy.
START_SECONDS = 60
CONFORMANCE_SECONDS = 900

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


def try_out(wheel: Path, lock: Path, scratch: Path) -> Path:
    """Install the wheel and the locked dependencies into an empty environment, and use it; return its `turnwire`."""
    python = _environment(scratch / "client")
    _install(python, "--require-hashes", "--requirement", str(lock))
    _install(python, "--no-deps", str(wheel))
    subprocess.run([str(python), "-I", "-c", SMOKE], cwd=scratch, check=True)
    turnwire = python.with_name("turnwire")
    for arguments in (["--help"], ["client-conformance", "--list"]):
        command = [str(turnwire), *arguments]
        subprocess.run(command, cwd=scratch, env=_own_environment(), check=True, stdout=subprocess.DEVNULL)
    return turnwire


def prove(wheel: Path, turnwire: Path, scratch: Path) -> None:
    """Run a server from the wheel, and have the conformance suite of another environment prove it."""
    python = _environment(scratch / "server")
    own = Path(sysconfig.get_path("purelib", vars={"base": str(python.parents[1])}))
    # Dependencies come from here. Our own packages do not: a path that comes from a .pth has no .pth of its own.
    (own / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    _install(python, "--no-deps", str(wheel))
    with subprocess.Popen(
        [str(python), *SERVE], cwd=scratch, env=_own_environment(), stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            command = [str(turnwire), "conformance", _address(server)]
            done = _run(command, scratch, CONFORMANCE_SECONDS)
        finally:
            server.terminate()
    if done.returncode:
        raise SystemExit(
            f"{wheel.name}: what is installed from it does not keep the contract\n{done.stdout}{done.stderr}"
        )
    print(done.stdout.splitlines()[-1])


def _address(server: subprocess.Popen[str]) -> str:
    """Return where a server listens, which is the first line that it prints."""
    stdout = server.stdout
    ready = select.select([stdout], [], [], START_SECONDS)[0] if stdout else []
    line = stdout.readline() if stdout and ready else ""
    if not line.startswith(LISTENING):
        raise SystemExit(f"the server from the wheel does not start: it says {line!r} in {START_SECONDS} s")
    return line.removeprefix(LISTENING).strip()


def _run(command: list[str], scratch: Path, seconds: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=scratch, env=_own_environment(), timeout=seconds, check=False, capture_output=True, text=True
    )


def _own_environment() -> dict[str, str]:
    """Return the variables of this process without those that would let Python find the source tree."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


def _environment(folder: Path) -> Path:
    """Create an empty environment; return its Python."""
    venv.create(folder, with_pip=False)
    return folder / "bin" / "python"


def _install(python: Path, *arguments: str) -> None:
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, *arguments], check=True)


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
        prove(wheel, try_out(wheel, options.lock, scratch), scratch)
        print(f"{wheel.name}: stands on its own")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Fetch what turnwire needs but does not copy in, each archive pinned by version and hash.

- ``protovalidate``: ``buf/validate/validate.proto``, from the source archive of the Python package.
  Lint and code generation read it.
- ``aimock``: a provider API server that nobody here wrote (OpenAI chat and Responses, Anthropic,
  Gemini), from npm. The tests of the real engine talk to it.
- ``mcp-server``: an MCP server that nobody here wrote, with the npm packages that it needs. They are
  pinned by ``tools/mcp-server/package-lock.json``, which names no registry; another version is put into
  ``package.json`` there, and then into the lock by ``npm --prefix tools/mcp-server install
  --package-lock-only --omit-lockfile-registry-resolved --ignore-scripts``.

All land in ``third_party/``, which git ignores. Archives are asked for by package name from the
package managers' own clients, so mirrors, proxies and certificates come from the user's own
configuration. What is already there with the right hash is not fetched again. Without npm what comes
from there is skipped, visibly; where ``CI`` is ``true`` that is a failure.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parent.parent

# pip asks a source archive's build backend for metadata before it hands the archive over, and
# protovalidate's backend needs a Rust toolchain. We only unpack one text file, so this stands in.
STUB_BACKEND = """\
from pathlib import Path

def prepare_metadata_for_build_wheel(metadata_directory, config_settings=None):
    info = Path(metadata_directory, "{name}-{version}.dist-info")
    info.mkdir()
    info.joinpath("METADATA").write_text("Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n")
    return info.name
"""


class FetchError(Exception):
    """A dependency could not be fetched, or is not what its hash says."""


class SkippedError(Exception):
    """A dependency cannot be fetched here, and the build does without it."""


@dataclass(frozen=True)
class Dependency:
    """One pinned archive: where it comes from, what of it is kept and where."""

    name: str
    package: str
    version: str
    sha256: str
    download: Callable[[Dependency, Path], Path]
    prefix: str
    """The folder inside the archive that becomes ``third_party/<name>``."""

    def fill(self, scratch: Path, target: Path) -> None:
        """Put what is kept of it into a folder."""
        unpack(verified(self.download(self, scratch), self.sha256), self, target)


@dataclass(frozen=True)
class NpmInstallation:
    """An npm package with all that it needs, each archive pinned by the lock in a folder of ours."""

    name: str
    version: str
    folder: Path

    @property
    def sha256(self) -> str:
        """The hash of the lock, which has the hashes of all archives."""
        return hashlib.sha256((self.folder / "package-lock.json").read_bytes()).hexdigest()

    def fill(self, _scratch: Path, target: Path) -> None:
        """Install into a folder; no script of any package is run."""
        npm = found_npm()
        target.mkdir()
        for name in ("package.json", "package-lock.json"):
            shutil.copy(self.folder / name, target)
        prefix = str(target.resolve())  # npm stumbles over a link on the way
        command = [npm, "ci", "--prefix", prefix, "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        run(command, env=dict(os.environ))


def download_from_pip(dependency: Dependency, scratch: Path) -> Path:
    """Download a Python source archive into ``scratch`` without building anything."""
    stub = scratch / "stub"
    stub.mkdir()
    backend = STUB_BACKEND.format(name=dependency.package, version=dependency.version)
    (stub / "maturin.py").write_text(backend, encoding="utf-8")
    requirements = scratch / "requirements.txt"
    pin = f"{dependency.package}=={dependency.version} --hash=sha256:{dependency.sha256}\n"
    requirements.write_text(pin, encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--no-binary", ":all:", "--no-build-isolation", "--require-hashes"]
    command += ["--dest", str(scratch), "--requirement", str(requirements)]
    run(command, env={**os.environ, "PYTHONPATH": str(stub)})
    return scratch / f"{dependency.package}-{dependency.version}.tar.gz"


def download_from_npm(dependency: Dependency, scratch: Path) -> Path:
    """Download an npm package's archive into ``scratch`` without installing it."""
    package = f"{dependency.package}@{dependency.version}"
    run([found_npm(), "pack", "--silent", "--pack-destination", str(scratch), package], env=dict(os.environ))
    return next(scratch.glob("*.tgz"))


def found_npm() -> str:
    """Return where npm is, or raise SkippedError."""
    npm = shutil.which("npm")
    if npm is None:
        raise SkippedError("npm is not on PATH")
    return npm


def run(command: list[str], env: dict[str, str]) -> None:
    """Run a command in a neutral folder; its output is shown only if it fails."""
    with tempfile.TemporaryDirectory() as neutral:
        done = subprocess.run(
            command, cwd=neutral, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
    if done.returncode != 0:
        raise FetchError(f"{' '.join(command[:4])} ... ended with {done.returncode}:\n{done.stdout}")


def verified(archive: Path, sha256: str) -> bytes:
    """Return the archive's bytes, or raise FetchError if they are not the pinned ones."""
    content = archive.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise FetchError(f"{archive.name} has sha256 {found}, expected {sha256}")
    return content


def unpack(content: bytes, dependency: Dependency, target: Path) -> None:
    """Write the regular files of a verified archive that lie in its prefix below ``target``."""
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as archive:
        for member in archive:
            path = PurePosixPath(member.name)
            if not member.isfile() or ".." in path.parts or not path.is_relative_to(dependency.prefix):
                continue
            inner = path.relative_to(dependency.prefix)
            source = archive.extractfile(member)
            if source is not None:
                file = target / inner
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(source.read())


def fetch(dependency: Dependency | NpmInstallation, third_party: Path) -> str:
    """Make ``third_party/<name>`` hold what is pinned; return what was done, in words."""
    target = third_party / dependency.name
    marker = target / ".sha256"
    if marker.is_file() and marker.read_text(encoding="utf-8").strip() == dependency.sha256:
        return "present"
    third_party.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=third_party, prefix=".fetch-") as scratch_name:
        scratch = Path(scratch_name)
        fresh = scratch / "fresh"
        dependency.fill(scratch, fresh)
        (fresh / ".sha256").write_text(dependency.sha256 + "\n", encoding="utf-8")
        shutil.rmtree(target, ignore_errors=True)
        fresh.rename(target)
    return "fetched"


DEPENDENCIES: dict[str, Dependency | NpmInstallation] = {
    dependency.name: dependency
    for dependency in (
        Dependency(
            name="protovalidate",
            package="protovalidate",
            version="2.1.0",
            sha256="d2f66bd8c7e8c4929116ad598348e83d90bd718f0387f2307b34f83b1740f318",
            download=download_from_pip,
            prefix="protovalidate-2.1.0/proto",
        ),
        Dependency(
            name="aimock",
            package="@copilotkit/aimock",
            version="1.43.0",
            sha256="54f4ba4ef984696557e84176d6c4f37150047819a4eda374850a390534bbf117",
            download=download_from_npm,
            prefix="package",
        ),
        NpmInstallation(name="mcp-server", version="2026.8.31", folder=ROOT / "tools" / "mcp-server"),
    )
}


def main(arguments: list[str] | None = None) -> int:
    """Fetch the named dependencies, or all of them; return the exit status."""
    parser = argparse.ArgumentParser(description="Fetch pinned third-party files into third_party/.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of: {', '.join(DEPENDENCIES)} (default: all)")
    parser.add_argument("--third-party", type=Path, default=ROOT / "third_party", help="the folder to fill")
    options = parser.parse_args(arguments)
    if unknown := set(options.names) - DEPENDENCIES.keys():
        parser.error(f"unknown dependency: {', '.join(sorted(unknown))}")
    for name in options.names or DEPENDENCIES:
        dependency = DEPENDENCIES[name]
        label = f"{name} {dependency.version}"
        try:
            print(f"deps: {label}: {fetch(dependency, options.third_party)}")
        except SkippedError as reason:
            if os.environ.get("CI") == "true":
                print(f"deps: {label}: FAILED: {reason}, and CI needs it", file=sys.stderr)
                return 1
            print(f"deps: {label}: SKIPPED: {reason}; the tests that need it will be skipped")
        except FetchError as error:
            print(f"deps: {label}: FAILED: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

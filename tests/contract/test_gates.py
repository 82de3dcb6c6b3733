"""The gates of `make check` can fail: each has a seeded violation here, and only that makes it fail."""

import base64
import dataclasses
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

import check_breaking
import check_generated
import check_wheel
import fetch_deps
from support.proto_docs import ROOT

BIN = Path(sys.executable).parent


@pytest.fixture(autouse=True)
def _tools_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{BIN}{os.pathsep}{os.environ['PATH']}")


# --- check_breaking ------------------------------------------------------------------------------------

KEPT = """\
syntax = "proto3";
package seeded.v1;
message Seeded {
  string text = 1;
}
"""
BROKEN = KEPT.replace("string text", "int64 text")
ADDED = KEPT.replace("}", "  string more = 2;\n}")
ANNOUNCED = "# Changelog\n\n- Breaking: Seeded.text is a number.\n"


class Repository:
    """A git repository with a contract of one message."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "proto" / "seeded" / "v1").mkdir(parents=True)
        (root / "third_party" / "protovalidate").mkdir(parents=True)
        modules = "version: v2\nmodules:\n  - path: proto\nbreaking:\n  use:\n    - FILE\n"
        (root / "buf.yaml").write_text(modules)
        self.write(KEPT, "# Changelog\n")
        self._git("init", "--quiet")

    def write(self, contract: str, changelog: str = "") -> None:
        """Change the working tree; without a changelog that stays."""
        (self.root / "proto" / "seeded" / "v1" / "seeded.proto").write_text(contract)
        if changelog:
            (self.root / "CHANGELOG.md").write_text(changelog)

    def commit(self, contract: str = "", changelog: str = "") -> str:
        """Commit a change, or what is there; return the commit."""
        if contract:
            self.write(contract, changelog)
        self._git("add", "--all")
        identity = ("-c", "user.name=seeded", "-c", "user.email=seeded@example.com", "-c", "commit.gpgsign=false")
        self._git(*identity, "commit", "--quiet", "--allow-empty", "--no-verify", "--message", "seeded")
        return self._git("rev-parse", "HEAD")

    def check(self, *arguments: str) -> int:
        return check_breaking.main(["--root", str(self.root), *arguments])

    def _git(self, *arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=self.root, check=True, capture_output=True, text=True)
        return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", os.devnull)
    return Repository(tmp_path)


def test_breaking_passes_what_is_added(repository: Repository, capfd: pytest.CaptureFixture[str]) -> None:
    first = repository.commit()
    repository.write(ADDED)
    assert repository.check() == 0
    assert f"keeps {first[:12]} (the first commit with a contract)" in capfd.readouterr().out


def test_breaking_fails_until_it_is_announced(repository: Repository, capfd: pytest.CaptureFixture[str]) -> None:
    repository.commit()
    repository.write(BROKEN)
    assert repository.check() == 1
    assert 'Field "1" with name "text" on message "Seeded" changed type' in capfd.readouterr().err
    repository.write(BROKEN, "# Changelog\n\n- Nothing to see here.\n")
    assert repository.check() == 1
    repository.write(BROKEN, ANNOUNCED)
    assert repository.check() == 0
    assert "and CHANGELOG.md says so" in capfd.readouterr().out


def test_breaking_fails_however_many_commits_ago(repository: Repository) -> None:
    repository.commit()
    repository.commit(BROKEN)
    repository.commit()
    assert repository.check() == 1
    repository.commit(BROKEN, ANNOUNCED)
    assert repository.check() == 0


def test_one_announcement_is_for_one_break(repository: Repository, capfd: pytest.CaptureFixture[str]) -> None:
    repository.commit()
    announced = repository.commit(BROKEN, ANNOUNCED)
    repository.write(KEPT)
    assert repository.check() == 1
    assert f"breaks {announced[:12]} (the newest commit that announced a break)" in capfd.readouterr().err


def test_a_removed_announcement_is_none(repository: Repository) -> None:
    repository.commit(KEPT, ANNOUNCED)
    repository.commit(BROKEN, "# Changelog\n")
    assert repository.check() == 1


def test_breaking_compares_with_what_is_asked_for(repository: Repository) -> None:
    first = repository.commit()
    repository.commit(BROKEN)
    assert repository.check("--commit", "HEAD") == 0
    assert repository.check("--commit", first) == 1
    with pytest.raises(SystemExit) as refused:
        repository.check("--commit", "nonsense")
    assert refused.value.code == 2


def test_a_release_cannot_be_broken_at_all(repository: Repository, capfd: pytest.CaptureFixture[str]) -> None:
    repository.commit()
    releases = repository.root / "proto" / "releases"
    releases.mkdir()
    for version, contract in (("v0.9.0", BROKEN), ("v0.10.0", KEPT)):
        repository.write(contract)
        image = str(releases / f"{version}.binpb")
        subprocess.run(["buf", "build", "proto", "--output", image], cwd=repository.root, check=True)
    assert repository.check() == 0
    repository.write(BROKEN, ANNOUNCED)
    assert repository.check() == 1
    assert "breaks release v0.10.0" in capfd.readouterr().err


def test_breaking_passes_where_there_is_nothing_to_compare_with(
    repository: Repository, capfd: pytest.CaptureFixture[str]
) -> None:
    assert repository.check() == 0
    assert "nothing to compare with" in capfd.readouterr().out


# --- check_generated -----------------------------------------------------------------------------------


def test_generated_code_fails_when_it_drifts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    committed = tmp_path / "gen"
    shutil.copytree(ROOT / "gen", committed, ignore=shutil.ignore_patterns("__pycache__"))
    assert check_generated.check(ROOT / "gen", committed) == 0
    drifted, removed = "python/turnwire/v1/event_pb2.py", "python/turnwire/v1/turn_pb2.pyi"
    with (committed / drifted).open("a") as file:
        file.write("# touched\n")
    (committed / removed).unlink()
    (committed / "python" / "extra.py").touch()
    assert check_generated.check(ROOT / "gen", committed) == 1
    assert capsys.readouterr().err.splitlines()[1:] == [
        f"  missing: {removed}",
        "  not generated: python/extra.py",
        f"  stale: {drifted}",
    ]


# --- check_wheel ---------------------------------------------------------------------------------------

WHEEL = [*check_wheel.TYPED, "turnwire-0.1.0.dist-info/RECORD"]


@pytest.mark.parametrize(
    ("names", "problems"),
    [
        (WHEEL, []),
        ([*WHEEL, "google/protobuf/message.py"], ["google/ is not ours to ship"]),
        (
            [*WHEEL, "buf/validate/validate_pb2.py", "stray.py"],
            ["buf/ is not ours to ship", "stray.py/ is not ours to ship"],
        ),
        ([*WHEEL[1:], "turnwire/v1/event_pb2.py"], ["turnwire/v1/py.typed is missing"]),
        (
            [name for name in WHEEL if "server" not in name],
            ["turnwire_server/ is missing", "turnwire_server/py.typed is missing"],
        ),
    ],
)
def test_wheel_holds_our_packages_and_nothing_else(names: list[str], problems: list[str]) -> None:
    assert check_wheel.problems(names) == problems


def test_wheel_with_a_package_of_others_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    settings = (tmp_path / "pyproject.toml").read_text()
    (tmp_path / "pyproject.toml").write_text(
        settings.replace('"gen/python/turnwire"', '"gen/python/turnwire", "gen/python/google"')
    )
    for package in (*PACKAGES, "gen/betterproto/turnwire_models", "gen/python/google"):
        (tmp_path / package).mkdir(parents=True)
        (tmp_path / package / "__init__.py").touch()
    assert check_wheel.main(["--root", str(tmp_path)]) == 1
    assert "google/ is not ours to ship" in capsys.readouterr().err


# --- fetch_deps ----------------------------------------------------------------------------------------


def seeded_archive(folder: Path) -> Path:
    archive = folder / "seeded.tar.gz"
    with tarfile.open(archive, "w:gz") as files:
        for name in ("package/kept.txt", "package/../../escaped.txt", "other/left.txt"):
            member = tarfile.TarInfo(name)
            member.size = len(b"content")
            files.addfile(member, io.BytesIO(b"content"))
    return archive


def seeded_dependency(folder: Path, sha256: str = "") -> fetch_deps.Dependency:
    """A dependency whose archive is a file here; without a hash the right one."""
    archive = seeded_archive(folder)
    return fetch_deps.Dependency(
        name="seeded",
        package="seeded",
        version="1",
        sha256=sha256 or hashlib.sha256(archive.read_bytes()).hexdigest(),
        download=lambda _dependency, _scratch: archive,
        prefix="package",
    )


def fetch_with_main(
    dependency: fetch_deps.Dependency | fetch_deps.NpmInstallation, third_party: Path, monkeypatch: pytest.MonkeyPatch
) -> int:
    monkeypatch.setitem(fetch_deps.DEPENDENCIES, "seeded", dependency)
    return fetch_deps.main(["seeded", "--third-party", str(third_party)])


def test_a_dependency_with_the_right_hash_is_fetched_once(tmp_path: Path) -> None:
    third_party = tmp_path / "a" / "b"
    dependency = seeded_dependency(tmp_path)
    assert [fetch_deps.fetch(dependency, third_party) for _ in range(2)] == ["fetched", "present"]
    assert sorted(path.name for path in third_party.rglob("*")) == [".sha256", "kept.txt", "seeded"]
    assert not list(tmp_path.rglob("escaped.txt"))


def test_a_dependency_with_a_wrong_hash_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    good = seeded_dependency(tmp_path)
    assert fetch_with_main(good, tmp_path / "third_party", monkeypatch) == 0
    bad = seeded_dependency(tmp_path, sha256="0" * 64)
    assert fetch_with_main(bad, tmp_path / "third_party", monkeypatch) == 1
    assert "FAILED" in capsys.readouterr().err
    kept = tmp_path / "third_party" / "seeded"
    assert (kept / ".sha256").read_text().strip() == good.sha256, "what was good stays"


@pytest.mark.parametrize(("ci", "status"), [("true", 1), ("", 0)])
def test_a_skipped_dependency_fails_in_ci(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ci: str, status: int
) -> None:
    def skip(_dependency: fetch_deps.Dependency, _scratch: Path) -> Path:
        raise fetch_deps.SkippedError("no such tool")

    monkeypatch.setenv("CI", ci)
    dependency = dataclasses.replace(seeded_dependency(tmp_path), download=skip)
    assert fetch_with_main(dependency, tmp_path / "third_party", monkeypatch) == status


def seeded_installation(folder: Path, archive: Path, integrity: str) -> fetch_deps.NpmInstallation:
    """An npm package that is a file here, pinned by a lock that says `integrity`."""
    folder.mkdir()
    needed = {"seeded": f"file:{archive}"}
    package = {"version": "1.0.0", "resolved": f"file:{archive}", "integrity": integrity}
    lock = {"lockfileVersion": 3, "packages": {"": {"dependencies": needed}, "node_modules/seeded": package}}
    (folder / "package.json").write_text(json.dumps({"dependencies": needed}), encoding="utf-8")
    (folder / "package-lock.json").write_text(json.dumps(lock), encoding="utf-8")
    return fetch_deps.NpmInstallation("seeded", "1", folder)


@pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not on PATH")
def test_an_npm_package_with_a_wrong_hash_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = tmp_path / "seeded.tgz"
    with tarfile.open(archive, "w:gz") as files:
        content = b'{"name": "seeded", "version": "1.0.0"}'
        member = tarfile.TarInfo("package/package.json")
        member.size = len(content)
        files.addfile(member, io.BytesIO(content))
    right = "sha512-" + base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    wrong = "sha512-" + base64.b64encode(hashlib.sha512(b"").digest()).decode()
    third_party = tmp_path / "third_party"
    good = seeded_installation(tmp_path / "good", archive, right)
    assert [fetch_deps.fetch(good, third_party) for _ in range(2)] == ["fetched", "present"]
    assert (third_party / "seeded" / "node_modules" / "seeded" / "package.json").is_file()
    bad = seeded_installation(tmp_path / "bad", archive, wrong)
    assert fetch_with_main(bad, third_party, monkeypatch) == 1
    assert "EINTEGRITY" in capsys.readouterr().err


def test_the_lock_of_the_mcp_server_names_no_place() -> None:
    lock = json.loads((ROOT / "tools/mcp-server/package-lock.json").read_text(encoding="utf-8"))
    packages = {name: package for name, package in lock["packages"].items() if name}
    assert len(packages) > 50
    assert [name for name, package in packages.items() if "resolved" in package or "integrity" not in package] == []


# --- the rooms -----------------------------------------------------------------------------------------

LAYERS = "Rooms are stacked; no room imports a room above it"
CORE = "The core knows neither gRPC nor protobuf"
PROTECTED = "Only bootstrap names an implementation"
STRANGERS = "Client and server are strangers"
JUDGES = "Conformance knows nothing but generated stubs"
CONTRACTS = (LAYERS, CORE, PROTECTED, STRANGERS, JUDGES)
PACKAGES = (
    "server/turnwire_server",
    "client/turnwire_client",
    "tests/conformance/turnwire_conformance",
    "gen/python/turnwire",
)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of our packages, with the map of their rooms."""
    root = tmp_path_factory.mktemp("house")
    shutil.copy(ROOT / "pyproject.toml", root)
    for package in PACKAGES:
        shutil.copytree(ROOT / package, root / Path(package).name, ignore=shutil.ignore_patterns("__pycache__"))
    return root


def broken_contracts(house: Path) -> set[str]:
    done = subprocess.run(
        [BIN / "lint-imports", "--no-cache"],
        check=False,
        cwd=house,
        env={**os.environ, "PYTHONPATH": str(house)},
        capture_output=True,
        text=True,
    )
    broken = {contract for contract in CONTRACTS if f"{contract} BROKEN" in done.stdout}
    assert (done.returncode, f"{len(CONTRACTS)} kept" in done.stdout) == ((1, False) if broken else (0, True)), (
        done.stdout + done.stderr
    )
    return broken


def test_rooms_pass(house: Path) -> None:
    assert broken_contracts(house) == set()


@pytest.mark.parametrize(
    ("path", "line", "contract"),
    [
        ("turnwire_server/wire/seeded.py", "import turnwire_server.stores.base", LAYERS),
        ("turnwire_server/cellar/__init__.py", "", LAYERS),
        ("turnwire_server/runtime/seeded.py", "import grpc", CORE),
        ("turnwire_server/domain/seeded.py", "from google.protobuf import message", CORE),
        ("turnwire_server/domain/seeded.py", "from turnwire.v1 import event_pb2", CORE),
        ("turnwire_server/events/seeded.py", "import turnwire_server.wire.event", CORE),
        ("turnwire_server/rpc/seeded.py", "import turnwire_server.stores.sqlite", PROTECTED),
        ("turnwire_client/seeded.py", "import turnwire_server.domain.event", STRANGERS),
        ("turnwire_server/rpc/seeded.py", "import turnwire_client", STRANGERS),
        ("turnwire_conformance/seeded.py", "import turnwire_client", JUDGES),
        ("turnwire_conformance/client/seeded.py", "import turnwire_server.wire.event", JUDGES),
    ],
)
def test_rooms_fail(house: Path, path: str, line: str, contract: str) -> None:
    seeded = house / path
    is_new = not seeded.parent.exists()
    seeded.parent.mkdir(exist_ok=True)
    seeded.write_text(f"{line}\n")
    try:
        assert broken_contracts(house) == {contract}
    finally:
        shutil.rmtree(seeded.parent) if is_new else seeded.unlink()


# --- buf lint and format -------------------------------------------------------------------------------

DOCUMENTED = """\
// A seeded contract.
syntax = "proto3";

package seeded.v1;

// A message.
message Seeded {
  // A field.
  string text = 1;
}
"""


def run_buf(root: Path, contract: str, *arguments: str) -> tuple[int, str]:
    """Run buf with our settings on a contract of one file; return its exit status and what it says."""
    root.mkdir()
    shutil.copy(ROOT / "buf.yaml", root)
    shutil.copytree(ROOT / "third_party" / "protovalidate", root / "third_party" / "protovalidate")
    file = root / "proto" / "seeded" / "v1" / "seeded.proto"
    file.parent.mkdir(parents=True)
    file.write_text(contract)
    done = subprocess.run(["buf", *arguments], check=False, cwd=root, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def test_lint_and_format_pass(tmp_path: Path) -> None:
    assert run_buf(tmp_path / "lint", DOCUMENTED, "lint") == (0, "")
    assert run_buf(tmp_path / "format", DOCUMENTED, "format", "--diff", "--exit-code", "proto") == (0, "")


@pytest.mark.parametrize(
    ("found", "instead", "said"),
    [
        ("  // A field.\n", "", 'Field "text" should have a non-empty comment'),
        ("  // A field.\n", "  // buf:lint:ignore COMMENT_FIELD\n", 'Field "text" should have a non-empty comment'),
        ("// A message.\n", "", 'Message "Seeded" should have a non-empty comment'),
        ("string text", "string theText", "should be lower_snake_case"),
    ],
)
def test_lint_fails(tmp_path: Path, found: str, instead: str, said: str) -> None:
    assert found in DOCUMENTED
    status, output = run_buf(tmp_path / "lint", DOCUMENTED.replace(found, instead), "lint")
    assert status == 100
    assert said in output


def test_format_fails(tmp_path: Path) -> None:
    crooked = DOCUMENTED.replace("  string", "      string")
    status, output = run_buf(tmp_path / "format", crooked, "format", "--diff", "--exit-code", "proto")
    assert status == 100
    assert "+  string text = 1;" in output

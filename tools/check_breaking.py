"""Fail if the contract breaks its callers.

Once a release is tagged, ``proto/releases/`` holds its descriptor image, and the contract must not
break the newest one. ``buf build proto --output proto/releases/v0.1.0.binpb`` writes an image.

Before that the contract is compared with the newest commit that announced a break, or with the first
commit that has a contract. So a break is found however many commits ago it was made. A commit announces
a break if CHANGELOG.md gains a line that says ``Breaking``; the same line, committed or not, lets this
check pass. What was added since that commit may still change.

buf decides what a break is (its FILE rules, buf.yaml).
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from io import BytesIO
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def release_images(root: Path) -> list[Path]:
    """The descriptor images of the released contracts, oldest version first."""
    images = (root / "proto" / "releases").glob("*.binpb")
    return sorted(images, key=lambda image: [int(number) for number in re.findall(r"\d+", image.stem)])


def git(root: Path, *arguments: str) -> bytes | None:
    """What a git command prints, or None if it fails."""
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, check=False)
    return done.stdout if done.returncode == 0 else None


def build_image(root: Path, commit: str, scratch: Path) -> Path | None:
    """Build the contract of a commit, or return None if that commit has none.

    What proto/ imports is fetched and not in git, so buf cannot build the commit out of git by itself.
    """
    archive = git(root, "archive", "--format=tar", commit, "proto")
    if archive is None:
        return None
    tree = scratch / "tree"
    with tarfile.open(fileobj=BytesIO(archive)) as files:
        for member in files:
            source = files.extractfile(member)
            if source is not None:
                path = tree / member.name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(source.read())
    shutil.copy(root / "buf.yaml", tree)
    shutil.copytree(root / "third_party" / "protovalidate", tree / "third_party" / "protovalidate")
    image = scratch / "base.binpb"
    subprocess.run(["buf", "build", "proto", "--output", str(image)], cwd=tree, check=True)
    return image


def breaks(root: Path, image: Path) -> str:
    """What buf says breaks against the image; empty if nothing does."""
    command = ["buf", "breaking", "proto", "--exclude-imports", "--against", str(image)]
    done = subprocess.run(command, cwd=root, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode not in (0, 100):
        raise subprocess.CalledProcessError(done.returncode, command)
    return done.stdout.rstrip()


def gains_announcement(diff: bytes | None) -> bool:
    """Whether a diff of CHANGELOG.md adds a line with ``Breaking``."""
    return any(re.match(rb"\+(?!\+\+ ).*\bBreaking\b", line) for line in (diff or b"").splitlines())


def announced(root: Path, commit: str) -> bool:
    """Whether CHANGELOG.md gained a line with ``Breaking`` since the commit."""
    return gains_announcement(git(root, "diff", "--unified=0", commit, "--", "CHANGELOG.md"))


def base_commit(root: Path) -> tuple[str, str] | None:
    """The commit to compare with before the first release, and why that one; None where no commit has a contract."""
    changes = (git(root, "log", "--format=%H", "-GBreaking", "--", "CHANGELOG.md") or b"").decode().split()
    for commit in changes:
        if gains_announcement(git(root, "show", "--format=", "--unified=0", commit, "--", "CHANGELOG.md")):
            return commit, "the newest commit that announced a break"
    contracts = (git(root, "log", "--reverse", "--format=%H", "--", "proto") or b"").decode().split()
    return (contracts[0], "the first commit with a contract") if contracts else None


def check_release(root: Path, image: Path) -> int:
    """Compare with a released contract; no break is allowed."""
    found = breaks(root, image)
    if found:
        print(f"{found}\nThe contract breaks release {image.stem}; add beside what is there.", file=sys.stderr)
        return 1
    print(f"the contract keeps release {image.stem}")
    return 0


def check_commit(root: Path, commit: str, why: str) -> int:
    """Compare with an earlier commit; a break must be announced."""
    name = f"{commit[:12]} ({why})"
    with tempfile.TemporaryDirectory() as scratch:
        image = build_image(root, commit, Path(scratch))
        if image is None:
            print(f"{name} has no contract: nothing to compare with")
            return 0
        found = breaks(root, image)
    if not found:
        print(f"the contract keeps {name}")
        return 0
    if announced(root, commit):
        print(f"{found}\nThe contract breaks {name}, and CHANGELOG.md says so.")
        return 0
    print(f"{found}\nThe contract breaks {name}. Say so in a line of CHANGELOG.md with the word", file=sys.stderr)
    print("Breaking, or keep what was there.", file=sys.stderr)
    return 1


def main(arguments: list[str] | None = None) -> int:
    """Check against the newest release, else against a commit; return the exit status."""
    parser = argparse.ArgumentParser(description="Check that the contract does not break its callers.")
    parser.add_argument("--root", type=Path, default=ROOT, help="the repository to check")
    parser.add_argument("--commit", help="what to compare with before the first release")
    options = parser.parse_args(arguments)
    if images := release_images(options.root):
        return check_release(options.root, images[-1])
    if options.commit and git(options.root, "rev-parse", "--verify", "--quiet", f"{options.commit}^{{commit}}") is None:
        parser.error(f"no commit {options.commit}")
    base = (options.commit, "as asked") if options.commit else base_commit(options.root)
    if base is None:
        print("no release and no commit with a contract: nothing to compare with")
        return 0
    return check_commit(options.root, *base)


if __name__ == "__main__":
    sys.exit(main())

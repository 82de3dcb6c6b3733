"""Where the seeded failures of the gates are: what each gate has to find, so that it is known to be able to fail."""

from pathlib import Path

from support.proto_docs import Contract, load_folder

SEEDED = Path(__file__).resolve().parents[1] / "fixtures" / "contract"


def seeded_contract(package: str) -> Contract:
    """Return the contract of one file in tests/fixtures/contract/proto: the one with the package `seeded.<package>`."""
    whole = load_folder(SEEDED / "proto")
    return Contract(tuple(file for file in whole.files if file.package == f"seeded.{package}"), whole.rules)

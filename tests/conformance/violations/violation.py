"""A violation: a name, the statements of the contract that it breaks, and what it does to calls."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from support.citations import Cited
from support.statements import PACKAGE
from violations.exchange import Plant


@dataclass(frozen=True, slots=True)
class Violation:
    """One way to break the contract. Each statement that it `breaks` has to make a case fail that cites it."""

    name: str
    breaks: tuple[Cited, ...]
    plants: tuple[Plant, ...]

    def __str__(self) -> str:
        """As tests are named."""
        return self.name


def violation(name: str, breaks: tuple[str, str] | Sequence[tuple[str, str]], *plants: Plant) -> Violation:
    """Return a violation. `breaks` is a statement or more: an element, without `turnwire.v1.`, and how one begins."""
    several = cast("Sequence[tuple[str, str]]", [breaks] if isinstance(breaks[0], str) else breaks)
    return Violation(name, tuple(_cited(*each) for each in several), plants)


def _cited(element: str, says: str) -> Cited:
    return Cited(element if element.startswith("turnwire") else f"{PACKAGE}.{element}", says)

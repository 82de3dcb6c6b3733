"""How a bug is planted: a function of the server is replaced in the process that runs it."""

from collections.abc import Callable
from typing import Any


def patch(where: object, name: str, make: Callable[[Any], Any]) -> None:
    """Replace a function or a method by what `make` makes of it."""
    setattr(where, name, make(getattr(where, name)))

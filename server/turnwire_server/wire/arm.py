"""The arms of a oneof: which noun each one carries, and how it is translated."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

Noun = TypeVar("Noun")
Wire = TypeVar("Wire")


@dataclass(frozen=True, slots=True)
class Arm(Generic[Noun, Wire]):
    """One arm of a oneof. `noun` and `wire` are the types on both sides, `field` is the name of the arm."""

    field: str
    noun: type[Noun]
    wire: type[Wire]
    to_proto: Callable[[Noun], Wire]
    from_proto: Callable[[Wire], Noun]

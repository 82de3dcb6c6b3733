"""Defects to plant in the Python SDK: what one is, and how it gets there."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeAlias

# Puts the defect into the SDK of this process.
Plant: TypeAlias = Callable[[], None]

PLANTS: dict[str, Plant] = {}


def plant(defect: Plant) -> Plant:
    """Registers a defect by the name of its function."""
    PLANTS[defect.__name__] = defect
    return defect


def swap(owner: Any, name: str, make: Callable[[Any], Any]) -> None:
    """Puts something else in the place of a function, a method or a value; `make` is given what was there."""
    setattr(owner, name, make(getattr(owner, name)))


def swap_everywhere(name: str, make: Callable[[Any], Any], *owners: Any) -> None:
    """Does that in every module that has imported it by this name."""
    for owner in owners:
        swap(owner, name, make)


def with_policy(**changes: float) -> Callable[[Any], Any]:
    """What makes of Transport.__init__ one that changes the policy that it is given."""

    def changing(init: Any) -> Any:
        def change(self: Any, channel: Any, policy: Any, clock: Any) -> None:
            init(self, channel, replace(policy, **changes), clock)

        return change

    return changing

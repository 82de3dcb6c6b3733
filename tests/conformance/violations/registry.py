"""All violations: those of each topic, and those that follow from the contract itself."""

import pkgutil
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cache
from importlib import import_module

import violations
from violations.violation import Violation


class RegistryError(Exception):
    """Two violations of the same name."""


@cache
def all_violations() -> Sequence[Violation]:
    """Return the violations of every module here that has VIOLATIONS, under names that begin with that of the module.

    Errors: RegistryError.
    """
    topics = [found.name for found in pkgutil.iter_modules(violations.__path__)]
    return tuple(each for topic in topics for each in named(topic, _written(topic)))


def _written(topic: str) -> Iterable[Violation]:
    return getattr(import_module(f"violations.{topic}"), "VIOLATIONS", ())


def named(topic: str, found: Iterable[Violation]) -> Sequence[Violation]:
    """Return the violations of a topic under their full names. Errors: RegistryError."""
    full = [replace(each, name=f"{topic}/{each.name}") for each in found]
    names = [each.name for each in full]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        msg = f"more than one violation is named {', '.join(twice)}"
        raise RegistryError(msg)
    return full

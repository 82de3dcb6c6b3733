"""What a profile is made of: the profiles that it extends, and how one is laid over another. Pure.

A name in `extends` means the profile that is in effect under it, which is that of the latest file; only a profile's own
name means the one that it replaces, which is that of the file before. So a later file can change what the profiles of
earlier ones are made of, and what would go in a circle is refused.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from turnwire_server.config.error import ConfigError
from turnwire_server.config.overlay import overlay
from turnwire_server.config.profile_file import ProfileEntry

# A longer chain is refused: nobody could say any more what is in effect.
LINEAGE_DEPTH_MAX = 32

# What a profile does not get from those that it extends. A profile that extends the one it replaces stays abstract.
_OWN = frozenset({"extends", "abstract", "version"})
_OWN_OF_REPLACED = frozenset({"extends", "version"})


@dataclass(frozen=True, slots=True, eq=False)
class WrittenProfile:
    """A profile as one file has it: what was read, and the same checked."""

    name: str
    source: str
    values: Mapping[str, Any]
    entry: ProfileEntry

    def __str__(self) -> str:
        return f"{self.name} ({self.source})"


# All profiles of a name, that of the earliest file first; the last one is in effect.
Written = Mapping[str, Sequence[WrittenProfile]]


def merge(lineage: Sequence[WrittenProfile]) -> dict[str, Any]:
    """Return what the last profile of a lineage says once it is laid over the others."""
    *below, leaf = lineage
    merged: dict[str, Any] = {}
    for each in below:
        own = _OWN_OF_REPLACED if each.name == leaf.name else _OWN
        merged = overlay(merged, {key: value for key, value in each.values.items() if key not in own})
    return overlay(merged, leaf.values)


def lineage_of(name: str, written: Written) -> tuple[WrittenProfile, ...]:
    """Return the profiles that the one in effect under `name` is made of, the first one first, itself last.

    Each is there once, before all that extend it. Errors: ConfigError for a name that is not there, and for a circle.
    """
    found: list[WrittenProfile] = []
    _visit(written[name][-1], written, [], found)
    return tuple(found)


def _visit(profile: WrittenProfile, written: Written, path: list[WrittenProfile], found: list[WrittenProfile]) -> None:
    if profile in path:
        circle = " -> ".join(map(str, [*path[path.index(profile) :], profile]))
        msg = f"profiles extend each other in a circle: {circle}; take one of these out of `extends`"
        raise ConfigError(msg)
    if len(path) > LINEAGE_DEPTH_MAX:
        msg = f"the profile {path[0]} extends others more than {LINEAGE_DEPTH_MAX} deep; make the chain shorter"
        raise ConfigError(msg)
    if profile in found:
        return
    for base in profile.entry.extends:
        _visit(_extended(profile, base, written), written, [*path, profile], found)
    found.append(profile)


def _extended(profile: WrittenProfile, base: str, written: Written) -> WrittenProfile:
    of_that_name = written.get(base, ())
    if base == profile.name:
        of_that_name = of_that_name[: of_that_name.index(profile)]
    if of_that_name:
        return of_that_name[-1]
    if base == profile.name:
        msg = f"the profile {profile} extends its own name, but replaces no profile of an earlier file"
    else:
        others = ", ".join(sorted(written.keys() - {profile.name}))
        msg = f"the profile {profile} extends {base}, which no file has; there are: {others or 'no others'}"
    raise ConfigError(f"{msg}; correct `extends`")

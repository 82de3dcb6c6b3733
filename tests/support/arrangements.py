"""How our own server is set up for each arrangement that cases name."""

from collections.abc import Mapping
from types import MappingProxyType

ARRANGEMENTS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "": (),
        "small": ("--queue-depth-max", "2", "--watchers-max", "3", "--inferences-running-max", "4"),
        "retention": ("--events-retention-seconds", "1"),
    }
)
"""The flags of `turnwire serve`, by the name of the arrangement; the empty one is the default."""

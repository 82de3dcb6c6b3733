"""Watching the heartbeats of other owners: who has been silent for too long. Pure, but for what it remembers."""

from collections.abc import Mapping
from dataclasses import dataclass

# How long an owner may be silent. Owners beat several times in that.
SILENCE_SECONDS_MAX = 4.0

# How long one may be unable to look before everything seen before counts for nothing: then the store was away, for the
# others as well, and nobody is to be blamed for it.
BLINDNESS_SECONDS_MAX = 2.0


@dataclass(frozen=True, slots=True)
class _Seen:
    beat: int
    since: float


class Observer:
    """What one process has seen of the others, by its own monotonic clock; no other clock takes part."""

    def __init__(self) -> None:
        self._seen: dict[str, _Seen] = {}
        self._looked = float("-inf")

    def find_silent(self, beats: Mapping[str, int], now: float) -> dict[str, int]:
        """Take the beats of all others, seen `now`; return those that have been silent for too long."""
        is_blind = now - self._looked > BLINDNESS_SECONDS_MAX
        self._looked = now
        before = {} if is_blind else self._seen
        self._seen = {
            owner: seen if (seen := before.get(owner)) and seen.beat == beat else _Seen(beat, now)
            for owner, beat in beats.items()
        }
        return {owner: seen.beat for owner, seen in self._seen.items() if now - seen.since > SILENCE_SECONDS_MAX}

"""What was measured: one value for each round, per scenario, case, contender and quantity; medians and ratios."""

import statistics
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Key:
    """What a value is about, such as the streams, `1 x 100`, of `full`: `deliveries/s`."""

    scenario: str
    case: str
    contender: str
    quantity: str


@dataclass(slots=True)
class Figures:
    """The values by round, and what could not be measured."""

    values: dict[Key, dict[int, float]] = field(default_factory=dict[Key, dict[int, float]])
    failures: list[str] = field(default_factory=list[str])

    def add(self, key: Key, round_number: int, value: float) -> None:
        """Keep what was measured in a round."""
        self.values.setdefault(key, {})[round_number] = value

    def median(self, key: Key) -> float | None:
        """Return the median over the rounds, None if nothing was measured."""
        found = self.values.get(key)
        return statistics.median(found.values()) if found else None

    def ratio(self, of: Key, to: Key) -> float | None:
        """Return the median of the ratios in each round, so that what disturbs a round disturbs both sides alike."""
        above, below = self.values.get(of, {}), self.values.get(to, {})
        ratios = [above[each] / below[each] for each in above if below.get(each)]
        return statistics.median(ratios) if ratios else None

    def difference(self, of: Key, to: Key) -> float | None:
        """Return the median of the differences in each round."""
        above, below = self.values.get(of, {}), self.values.get(to, {})
        differences = [above[each] - below[each] for each in above if each in below]
        return statistics.median(differences) if differences else None

    def cases(self, scenario: str, quantity: str) -> Iterator[str]:
        """Yield the cases of a scenario that have a quantity, in the order in which they were measured."""
        yield from dict.fromkeys(k.case for k in self.values if (k.scenario, k.quantity) == (scenario, quantity))

    def contenders(self, scenario: str, quantity: str) -> Iterator[str]:
        """Yield the contenders that a quantity of a scenario is known of."""
        yield from dict.fromkeys(k.contender for k in self.values if (k.scenario, k.quantity) == (scenario, quantity))

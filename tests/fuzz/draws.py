"""Decisions of a generator: a seed makes them, a record repeats them, shrinking takes back those that do not matter.

Hypothesis, which the sequences use, would do it too; but five of six examples that it makes are one with a part copied,
which is a waste where each costs a call of a server.
"""

import random
from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


class Draws:
    """Makes decisions; the first choice is the simplest. `record` has them, `flaws` how much may still be wrong.

    `given` are decisions to be made again; what goes beyond them is decided by `chance`, else as simply as can be.
    """

    def __init__(self, given: Sequence[int] = (), chance: random.Random | None = None) -> None:
        self.record: list[int] = []
        self.flaws = 0
        self._given = given
        self._chance = chance

    def _below(self, count: int) -> int:
        place = len(self.record)
        if place < len(self._given):
            decided = min(self._given[place], count - 1)
        else:
            decided = self._chance.randrange(count) if self._chance else 0
        self.record.append(decided)
        return decided

    def number(self, least: int, most: int) -> int:
        """Return a number; the least one is the simplest."""
        return least + self._below(most - least + 1)

    def pick(self, choices: Sequence[T]) -> T:
        """Return one of some things."""
        return choices[self._below(len(choices))]

    def once_in(self, times: int) -> bool:
        """Whether something happens that seldom happens; that it does not is simpler."""
        return self._below(times) == times - 1

    def is_flawed(self, times: int) -> bool:
        """Whether the next thing is wrong: once in so many times, as long as something may be."""
        if self.flaws > 0 and self.once_in(times):
            self.flaws -= 1
            return True
        return False


def shrink(record: Sequence[int], fails: Callable[[Sequence[int]], bool], tries_max: int) -> Sequence[int]:
    """Return fewer and simpler decisions that still fail, as far as that many tries find any."""
    best, tries = list(record), 0
    size = max(len(best) // 2, 1)
    while tries < tries_max:
        is_better = False
        for start in range(len(best) - 1, -1, -size):
            for simpler in _simpler(best, start, size):
                tries += 1
                if tries <= tries_max and fails(simpler):
                    best, is_better = simpler, True
                    break
        if size == 1 and not is_better:
            return best
        size = max(size // 2, 1)
    return best


def _simpler(record: Sequence[int], start: int, size: int) -> list[list[int]]:
    """Return records without some decisions, with the simplest ones in their place, and with simpler ones."""
    before, part, after = list(record[:start]), record[start : start + size], list(record[start + size :])
    if not part:
        return []
    found = [before + after]
    if any(part):
        found.append([*before, *(0 for _ in part), *after])
    if size == 1 and part[0] > 1:
        found.append([*before, part[0] // 2, *after])
        found.append([*before, part[0] - 1, *after])
    return found

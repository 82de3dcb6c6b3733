"""What every scenario is handed: where it keeps files, how much and how often it measures, and where figures go."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ParamSpec

import grpc

from bench.contenders import PEERS_OF_THEIR_OWN
from bench.figures import Figures, Key
from bench.h2load import LoadError
from bench.machine import missing_peers
from bench.scale import Scale

# What a measurement may end with that says something about the contender: it is reported, and the run goes on.
MEASUREMENT_ERRORS = (LoadError, ValueError, grpc.RpcError, TimeoutError, RuntimeError)


P = ParamSpec("P")


@dataclass(slots=True)
class BenchRun:
    """One run of the benchmark."""

    folder: Path
    scale: Scale
    rounds: int
    figures: Figures = field(default_factory=Figures)
    began: float = field(default_factory=time.monotonic)

    def each_round(self, scenario: str) -> Iterator[int]:
        """Yield the numbers of the rounds. Within one, contenders are measured one right after the other."""
        for number in range(1, self.rounds + 1):
            elapsed = time.monotonic() - self.began
            print(f"{elapsed:6.0f} s  {scenario}, round {number} of {self.rounds}", file=sys.stderr, flush=True)
            yield number

    def present(self, contenders: Sequence[str]) -> list[str]:
        """Return the contenders that are installed."""
        return [each for each in contenders if each not in PEERS_OF_THEIR_OWN or not missing_peers()]

    def measure(self, what: str, work: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
        """Do a measurement; if it fails, that is a line of the report."""
        try:
            work(*args, **kwargs)
        except MEASUREMENT_ERRORS as error:
            self.figures.failures.append(f"{what}: {' '.join(str(error).split())[:400]}")
            print(f"    failed: {self.figures.failures[-1]}", file=sys.stderr, flush=True)

    def add(self, key: Key, round_number: int, value: float) -> None:
        """Keep a figure."""
        self.figures.add(key, round_number, value)

"""The targets: what is to be reached, as ratios and differences within one run."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import log10

from bench.figures import Figures, Key
from bench.scenarios import growth, memory, paced, resume, streams, unary

# What a tenfold growth may cost: an operation is logarithmic if it costs no more than this part of itself more.
TENFOLD_MAX = 0.5


@dataclass(frozen=True, slots=True)
class Target:
    """A bound on something measured; `measure` returns None where that was not measured in this run."""

    text: str
    measure: Callable[[Figures], float | None]
    bound: float
    unit: str = "x"
    is_at_least: bool = True

    def is_met(self, value: float) -> bool:
        """Whether a value is within the bound."""
        return value >= self.bound if self.is_at_least else value <= self.bound


def _streamed(case: str, to: str, to_case: str = "") -> Callable[[Figures], float | None]:
    of = Key(streams.NAME, case, "full", streams.RATE)
    other = Key(streams.NAME, to_case or case, to, streams.RATE)
    return lambda figures: figures.ratio(of, other)


def _asked(case: str, to: str, to_case: str) -> Callable[[Figures], float | None]:
    of, other = Key(unary.NAME, case, "full", unary.RATE), Key(unary.NAME, to_case, to, unary.RATE)
    return lambda figures: figures.ratio(of, other)


def _replayed(watchers: int) -> Callable[[Figures], float | None]:
    case = resume.watched(watchers)
    of, to = (Key(resume.NAME, case, resume.CONTENDER, each) for each in (resume.REPLAY, resume.LIVE))
    return lambda figures: figures.ratio(of, to)


def _resumed(figures: Figures) -> float | None:
    most, least = (Key(resume.NAME, resume.behind(n), resume.CONTENDER, resume.FIRST) for n in (100_000, 1_000))
    return figures.ratio(most, least)


def _stopped(figures: Figures) -> float | None:
    ours, bare = (Key(memory.NAME, memory.STOPPED, each, memory.KIB) for each in ("full", memory.BARE))
    return figures.difference(ours, bare)


TARGETS: Sequence[Target] = (
    Target("100 watchers of one inference, to bare one per message", _streamed("1 x 100", "bare"), 12),
    Target("100 watchers of one inference, to bare 64 per message", _streamed("1 x 100", "bare64"), 0.7),
    Target("1 watcher, to bare one per message", _streamed("1 x 1", "bare"), 3),
    Target("1 watcher, to nolog", _streamed("1 x 1", "nolog"), 0.6),
    Target("100 inferences x 1 watcher, to bare one per message", _streamed("100 x 1", "bare"), 1.5),
    Target("100 inferences x 1 watcher, to nolog", _streamed("100 x 1", "nolog"), 0.4),
    Target("1 watcher, to a2a-sdk", _streamed("1 x 1", "a2a"), 15),
    Target("100 streams, to a2a-sdk", _streamed("100 x 1", "a2a"), 15),
    Target("100 own streams, to SSE", _streamed("100 x 1", "sse"), 2.5),
    Target("100 watchers of one inference, to SSE", _streamed("1 x 100", "sse"), 10),
    Target("StartInference, engine parked, to echo", _asked(unary.PARKED, "bare", unary.ECHO), 0.4),
    Target("StartInference to its end, to echo", _asked(unary.TO_END, "bare", unary.ECHO_OF_PROBE), 0.2),
    Target("GetInference, to echo", _asked(unary.GET, "bare", unary.ECHO), 0.4),
    Target("StartInference, engine parked, to a2a-sdk", _asked(unary.PARKED, "a2a", unary.PARKED), 1),
    Target("StartInference to its end, to a2a-sdk", _asked(unary.TO_END, "a2a", unary.TO_END), 1),
    Target("GetInference, to a2a-sdk's GetTask", _asked(unary.GET, "a2a", unary.GET), 1),
    Target("replay to 10 watchers, to live", _replayed(10), 0.5),
    Target("replay to 100 watchers, to live", _replayed(100), 0.5),
    Target("first missed event, 100,000 behind, to 1,000 behind", _resumed, 1.5, is_at_least=False),
    Target("a watcher that does not read, beyond bare gRPC's buffers", _stopped, 256, "KiB", is_at_least=False),
)


def paced_targets(figures: Figures) -> list[Target]:
    """Return the targets for each pace: what events take longer than those of a bare server, beside a commit."""
    found: list[Target] = []
    for case in figures.cases(paced.NAME, paced.P50):
        beyond = f"{case}: p50 beyond bare and 1.5 commits"
        found.append(Target(beyond, partial(_later, case, paced.P50, commits=1.5), 0.3, "ms", is_at_least=False))
        found.append(Target(f"{case}: p99 beyond bare", partial(_later, case, paced.P99), 10, "ms", is_at_least=False))
    return found


def _later(case: str, quantity: str, figures: Figures, *, commits: float = 0) -> float | None:
    """Return what paced events take longer with us than with a bare server and so many commits, in ms."""
    of, to = (Key(paced.NAME, case, each, quantity) for each in ("full", "bare"))
    later, commit = figures.difference(of, to), figures.median(Key(paced.NAME, case, paced.COMMIT, quantity))
    return None if later is None or commit is None else later - commits * commit


def growth_targets(figures: Figures) -> list[Target]:
    """Return a target for each operation that was measured at several sizes: its cost at the largest to the least."""
    found: list[Target] = []
    quantities = dict.fromkeys(key.quantity for key in figures.values if key.scenario == growth.NAME)
    for quantity in quantities:
        sizes = sorted(map(int, figures.cases(growth.NAME, quantity)))
        if len(sizes) < 2:
            continue
        bound = 1 + TENFOLD_MAX * log10(sizes[-1] / sizes[0])
        of, to = (Key(growth.NAME, str(size), growth.CONTENDER, quantity) for size in (sizes[-1], sizes[0]))
        text = f"{quantity}, at {sizes[-1]:,} to {sizes[0]:,}"
        found.append(Target(text, _ratio(of, to), bound, is_at_least=False))
    return found


def _ratio(of: Key, to: Key) -> Callable[[Figures], float | None]:
    return lambda figures: figures.ratio(of, to)

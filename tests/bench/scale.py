"""How much is measured: FULL for figures, SMOKE to see that every scenario works."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Scale:
    """Sizes of the scenarios."""

    # How long one measurement of a stream takes about, in seconds, and the most deliveries of its first, short one.
    stream_seconds: float
    first_deliveries_max: int
    # Shapes of streams as (sources, watchers).
    shapes: tuple[tuple[int, int], ...]
    # Paced: sessions, events of each per second, seconds.
    paced: tuple[tuple[int, float, float], ...]
    # Unary: requests that are made, and by how many connections at a time.
    unary_requests: int
    unary_clients: int
    # Events behind a watcher that comes back, and how often it does.
    behind: tuple[int, ...]
    resumes: int
    # Watchers that read a log of this many events from the store.
    replays: tuple[int, ...]
    replay_events: int
    # Growth.
    sessions: tuple[int, ...]
    events: tuple[int, ...]
    turns: tuple[int, ...]
    operations: int
    # How many of each are weighed.
    weighed: int
    stopped_watchers: int
    stopped_events: int


FULL = Scale(
    stream_seconds=1.0,
    first_deliveries_max=20_000,
    shapes=((1, 1), (1, 10), (1, 100), (1, 1000), (100, 1)),
    paced=((100, 50.0, 2.0), (100, 20.0, 2.0)),
    unary_requests=3000,
    unary_clients=16,
    behind=(1_000, 10_000, 100_000),
    resumes=15,
    replays=(1, 10, 100),
    replay_events=20_000,
    sessions=(1_000, 10_000, 100_000),
    events=(100, 1_000, 10_000, 100_000),
    turns=(10, 100, 1_000),
    operations=100,
    weighed=500,
    stopped_watchers=200,
    stopped_events=40_000,
)

SMOKE = Scale(
    stream_seconds=0.02,
    first_deliveries_max=60,
    shapes=((1, 2), (2, 1)),
    paced=((2, 50.0, 0.2),),
    unary_requests=8,
    unary_clients=2,
    behind=(50, 100),
    resumes=2,
    replays=(2,),
    replay_events=100,
    sessions=(5, 10),
    events=(50, 100),
    turns=(2, 4),
    operations=3,
    weighed=5,
    stopped_watchers=2,
    stopped_events=500,
)

"""When a server ends, and how long sessions live: decided by the seed alone, whatever the machine's pace."""

from dataclasses import dataclass
from enum import Enum
from random import Random

from fault.plays import Play, draw_play

# The sessions at a time. The first ones live as long as the test, the others are replaced from time to time.
SLOTS = 10
LASTING_SLOTS = 2

# How long a server is left alone, at most, once every session is busy again.
DELAY_SECONDS_MAX = 0.7

# How long a server takes, or a little more, to recover what it finds in the store that it has opened.
RECOVERY_SECONDS = 0.03

# How long a server takes, or a little less, to open its store.
START_SECONDS = 0.4


class Ending(Enum):
    """How a server ends."""

    KILL = "SIGKILL"
    STOP = "SIGTERM"
    STOP_AND_KILL = "SIGTERM, then SIGKILL"


@dataclass(frozen=True, slots=True)
class EarlyKill:
    """A SIGKILL while a server starts: so long after its launch, or after it has opened the store."""

    seconds: float
    is_after_opening: bool


@dataclass(frozen=True, slots=True)
class Round:
    """The life of one server, and of those before it that did not get to listen.

    An `is_hasty` one ends that long after it listens, whether its sessions are busy again or not.
    """

    number: int
    early_kills: tuple[EarlyKill, ...]
    ending: Ending
    is_hasty: bool
    delay_seconds: float
    kill_after_stop_seconds: float
    grace_seconds: float
    running_max: int


def draw_round(seed: int, number: int) -> Round:
    """Return a round."""
    rng = Random(f"{seed} round {number}")
    early_kills = [_draw_early_kill(rng) for _ in range(rng.choice((1, 1, 2)))] if rng.random() < 0.15 else []
    [ending] = rng.choices(list(Ending), (88, 8, 4))
    is_hasty = rng.random() < 0.08
    return Round(
        number=number,
        early_kills=tuple(early_kills),
        ending=ending,
        is_hasty=is_hasty,
        delay_seconds=rng.uniform(0, 0.1 if is_hasty else DELAY_SECONDS_MAX),
        kill_after_stop_seconds=rng.uniform(0, 0.3),
        grace_seconds=rng.choice((0.0, 0.1, 0.4)),
        running_max=rng.choice((6, 7, 1000)),
    )


def _draw_early_kill(rng: Random) -> EarlyKill:
    is_after_opening = rng.random() < 0.8
    return EarlyKill(rng.uniform(0, RECOVERY_SECONDS if is_after_opening else START_SECONDS), is_after_opening)


@dataclass(frozen=True, slots=True)
class Lifetime:
    """How many servers a session outlives, and whether it is deleted then, and how. 0: the whole test."""

    lives: int
    is_deleted: bool
    is_forced: bool
    may_hang: bool


def draw_lifetime(rng: Random, slot: int) -> Lifetime:
    """Return how long a session in a slot lives. Few may hang, so that there is always room to run another one."""
    lives = 0 if slot < LASTING_SLOTS else rng.randint(1, 3) if slot % 2 else rng.randint(3, 30)
    return Lifetime(lives, rng.random() < 0.6, rng.random() < 0.6, slot % 4 == 1)


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that a client does with its session: it asks for a play, and goes on from there.

    `linger_seconds` are waits for the end that it does not wait out; after each of them comes one of `doings`. Then it
    waits for the end, cancels, or leaves it alone.
    """

    play: Play
    opening: str
    is_patient: bool
    linger_seconds: tuple[float, ...]
    doings: tuple[str, ...]
    closing: str


def draw_step(rng: Random, *, may_hang: bool) -> Step:
    """Return the next step of a client."""
    count = rng.choice((0, 1, 1, 2))
    return Step(
        play=draw_play(rng, may_hang=may_hang),
        opening=rng.choices(("plain", "twice", "race", "impatient"), (12, 2, 1, 2))[0],
        is_patient=rng.random() < 0.4,
        linger_seconds=tuple(rng.uniform(0.01, 0.3) for _ in range(count)),
        doings=tuple(rng.choice(("update", "repeat", "look", "start", "nothing")) for _ in range(count)),
        closing=rng.choices(("wait", "cancel", "cancel session", "leave"), (8, 2, 2, 4))[0],
    )

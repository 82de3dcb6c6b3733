"""When a server ends, and how long sessions live: decided by the seed alone, whatever the machine's pace."""

from dataclasses import dataclass
from enum import Enum
from random import Random

from fault.plays import Play, draw_play

# The sessions at a time. The first ones live as long as the test, the others are replaced from time to time.
SLOTS = 8
LASTING_SLOTS = 2

# The sessions with one short inference after the other.
SPRINTS = 6

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
    POWER_CUT = "power cut"
    BROKEN_DISK = "SIGKILL on a broken disk"


@dataclass(frozen=True, slots=True)
class EarlyEnd:
    """A SIGKILL or a SIGTERM while a server starts: so long after its launch, or after it has opened the store."""

    seconds: float
    is_after_opening: bool
    is_stop: bool


class Nemesis(Enum):
    """What can happen to a server, besides its end."""

    PAUSE = "SIGSTOP, SIGCONT"
    CUT = "connections reset"
    HALF_OPEN = "connections half open"
    SWALLOW = "network swallows"
    DELAY = "network delays"
    TRICKLE = "network trickles"
    CLOCK = "clock jumps"
    FULL = "disk full"
    STALL = "disk stalls"
    SLOW = "disk slow"
    PROVIDER_RESET = "provider resets"
    PROVIDER_HANG = "provider hangs"
    PROVIDER_GARBAGE = "provider garbles"


# What takes a disk of its own.
DISK_NEMESES = (Nemesis.FULL, Nemesis.STALL, Nemesis.SLOW)
DISK_ENDINGS = (Ending.POWER_CUT, Ending.BROKEN_DISK)


# What takes a provider.
PROVIDER_NEMESES = (Nemesis.PROVIDER_RESET, Nemesis.PROVIDER_HANG, Nemesis.PROVIDER_GARBAGE)


def has_provider(seed: int) -> bool:
    """Whether there are clients of a provider with a seed: with every third one."""
    return seed % 3 == 1


def has_disk(seed: int) -> bool:
    """Whether the store of a seed is on a disk of its own, which fails: that of every third one. It is slower."""
    return seed % 3 == 0


@dataclass(frozen=True, slots=True)
class Strike:
    """One blow of a nemesis: for so long, and as hard as it says, from 0 to 1."""

    nemesis: Nemesis
    delay_seconds: float
    seconds: float
    strength: float


@dataclass(frozen=True, slots=True)
class Round:
    """The life of one server, and of those before it that did not get to listen.

    An `is_hasty` one ends that long after it listens, whether its sessions are busy again or not. `is_merciful`: it
    ends when everything has come to rest after the last strike, else in the middle of it.
    """

    number: int
    early_ends: tuple[EarlyEnd, ...]
    strikes: tuple[Strike, ...]
    is_merciful: bool
    ending: Ending
    is_hasty: bool
    delay_seconds: float
    kill_after_stop_seconds: float
    grace_seconds: float
    running_max: int


def draw_round(seed: int, number: int) -> Round:
    """Return a round."""
    rng = Random(f"{seed} round {number}")
    early_ends = [_draw_early_end(rng) for _ in range(rng.choice((1, 1, 2, 4)))] if rng.random() < 0.2 else []
    [ending] = rng.choices(list(Ending), (50, 8, 4, 28, 10) if has_disk(seed) else (88, 8, 4, 0, 0))
    is_hasty = rng.random() < 0.16
    strikes = [_draw_strike(rng, seed) for _ in range(rng.choice((0, 1, 1, 2)))] if not is_hasty else []
    return Round(
        number=number,
        early_ends=tuple(early_ends),
        strikes=tuple(strikes),
        is_merciful=rng.random() < 0.7,
        ending=ending,
        is_hasty=is_hasty,
        delay_seconds=rng.uniform(0, 0.1 if is_hasty else DELAY_SECONDS_MAX),
        kill_after_stop_seconds=rng.uniform(0, 0.3),
        grace_seconds=rng.choice((0.0, 0.1, 0.4)),
        running_max=rng.choice((12, 14, 1000)),
    )


def _draw_early_end(rng: Random) -> EarlyEnd:
    is_after_opening = rng.random() < 0.8
    seconds = rng.uniform(0, RECOVERY_SECONDS if is_after_opening else START_SECONDS)
    return EarlyEnd(seconds, is_after_opening, rng.random() < 0.25)


def _draw_strike(rng: Random, seed: int) -> Strike:
    """Draw a strike: most are short, some take longer than a server's patience with an owner that is silent."""
    seconds = rng.uniform(0.05, 1.5) if rng.random() < 0.85 else rng.uniform(3, 6.5)
    own = {
        **dict.fromkeys(DISK_NEMESES, 6 if has_disk(seed) else 0),
        **dict.fromkeys(PROVIDER_NEMESES, 4 if has_provider(seed) else 0),
    }
    [nemesis] = rng.choices(list(Nemesis), [own.get(nemesis, 2) for nemesis in Nemesis])
    return Strike(nemesis, rng.uniform(0, 0.6), seconds, rng.random())


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

"""What every attempt of a process works with."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from turnwire_server.domain.clock import Clock
from turnwire_server.domain.ids import Mint
from turnwire_server.events.log import EncodeEvent
from turnwire_server.runtime.step_changes import StepChanges
from turnwire_server.stores.base import SessionStore


@dataclass(frozen=True, slots=True)
class Ports:
    """What every attempt of a process works with.

    `abandon` takes the task of an engine or a tool that does not stop. `refresh` has those who watch a session look at
    the store. An engine that says nothing for longer than `silence_seconds_max` is stopped.
    """

    store: SessionStore
    encode: EncodeEvent
    clock: Clock
    mint: Mint
    abandon: Callable[[asyncio.Task[Any]], None]
    refresh: Callable[[str, str], None]
    silence_seconds_max: float
    step_changes: StepChanges

"""Bugs to plant into the real server, at least one for each checker: each is a defect that a server could really have.

A plant patches the process that it is applied in; fault.launcher does that, and nothing else may.
tests/fault/test_plants.py runs the suite against each, and demands that its checker reports it.
"""

import asyncio
import sqlite3
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from fault.planting import patch
from fault.server_plants import cancel_late, drain_crashes, silent_failure, watcher_starves
from turnwire_server.domain.event import Failed, Outcome
from turnwire_server.domain.inference import Inference, WaitUntil
from turnwire_server.domain.lifecycle import Transition
from turnwire_server.events import subscription
from turnwire_server.events.subscription import Delivery, StartKind, Subscription
from turnwire_server.rpc import inference_service
from turnwire_server.runtime import recovery
from turnwire_server.runtime.inference_loop import Attempt
from turnwire_server.runtime.runtime import Runtime
from turnwire_server.stores import sqlite, sqlite_inferences, sqlite_leases, sqlite_starts
from turnwire_server.stores.lease import Claim, Lease
from turnwire_server.stores.line import InLine
from turnwire_server.stores.sqlite import SqliteSessionStore
from turnwire_server.stores.sqlite_rows import InferenceRow
from turnwire_server.stores.sqlite_transaction import Transaction

# Seeds that begin with a power cut, and with a SIGTERM under load.
POWER_CUT_SEED, STOP_SEED = 765, 308


@dataclass(frozen=True, slots=True)
class Plant:
    """A bug, and the checker that has to find it; `seed` is one whose first rounds bring it to light."""

    checker: str
    apply: Callable[[], None]
    seed: int = 2


# --- the log -------------------------------------------------------------------------------------------


def _tail_lost() -> None:
    """A server that starts takes the last chunk of each log for torn, and drops it."""

    def make(migrate: Callable[..., None]) -> Callable[..., None]:
        def migrate_and_drop(connection: sqlite3.Connection, *arguments: Any) -> None:
            migrate(connection, *arguments)
            connection.execute(
                "DELETE FROM chunk WHERE last_sequence = (SELECT head_sequence FROM session WHERE key = chunk.session)"
            )
            connection.execute(
                "UPDATE session SET head_sequence ="
                " coalesce((SELECT max(last_sequence) FROM chunk WHERE session = session.key), 0)"
            )

        return migrate_and_drop

    patch(sqlite, "migrate", make)


def _never_synced() -> None:
    """Commits are written and not synchronized: the death of a process takes nothing, a power cut does."""

    def make(connect: Callable[..., sqlite3.Connection]) -> Callable[..., sqlite3.Connection]:
        def connect_loosely(*arguments: Any) -> sqlite3.Connection:
            connection = connect(*arguments)
            connection.execute("PRAGMA synchronous = OFF")
            return connection

        return connect_loosely

    patch(sqlite, "connect", make)


def _deliver(change: Callable[[Delivery], Delivery]) -> None:
    """Change what streams deliver."""

    def make(encode: Callable[[Delivery], bytes]) -> Callable[[Delivery], bytes]:
        return lambda delivery: encode(change(delivery))

    patch(inference_service, "_encode_delivery", make)


def _position_back() -> None:
    """A stream that is resumed says that it got less far than where it began."""

    def change(delivery: Delivery) -> Delivery:
        is_resumed = bool(delivery.opened) and not delivery.frames and delivery.after_sequence > 0
        return replace(delivery, through_sequence=delivery.after_sequence - 1) if is_resumed else delivery

    _deliver(change)


def _chunks_swapped() -> None:
    """What a delivery has of several commits is in it with the newest first."""
    _deliver(lambda delivery: replace(delivery, frames=delivery.frames[::-1]))


def _chunk_twice() -> None:
    """The last chunk of a delivery is delivered twice."""
    _deliver(lambda delivery: replace(delivery, frames=(*delivery.frames, *delivery.frames[-1:])))


def _chunk_skipped() -> None:
    """The fan-out loses the first of several chunks."""
    _deliver(lambda delivery: replace(delivery, frames=delivery.frames[1:] or delivery.frames))


def _end_untold() -> None:
    """What ends is stored as ended, and its terminal event is lost."""

    def make(move: Callable[..., Inference]) -> Callable[..., Inference]:
        def move_silently(
            tx: Transaction, row: InferenceRow, moved: Transition, before: Sequence[bytes] = ()
        ) -> Inference:
            if moved.inference.state.is_terminal:
                moved = replace(moved, events=moved.events[:-1])
            return move(tx, row, moved, before)

        return move_silently

    patch(sqlite_inferences, "move", make)


def _resumed_late() -> None:
    """A stream of one inference that continues after a sequence begins one too late."""

    class LateWatcher(subscription._Watcher):  # pyright: ignore[reportPrivateUsage] - it is to be broken
        def __init__(
            self,
            store: Any,
            reads: Any,
            topic: Any,
            request: Subscription,
            opened: Any,
            position: int,
            skip_to: int,
            end: Any,
        ) -> None:
            is_late = bool(request.inference_id) and request.start is StartKind.AFTER_SEQUENCE
            super().__init__(store, reads, topic, request, opened, position, skip_to + is_late, end)

    patch(subscription, "_Watcher", lambda _: LateWatcher)


# --- inferences ----------------------------------------------------------------------------------------


def _watcher_blocks() -> None:
    """What an inference tells is committed once every stream of its session has taken what was told before."""
    waiting: Counter[str] = Counter()

    def make_stream(subscribe: Callable[..., AsyncGenerator[bytes]]) -> Callable[..., AsyncGenerator[bytes]]:
        async def subscribe_events(self: Any, request: Any, caller: Any) -> AsyncGenerator[bytes]:
            async for response in subscribe(self, request, caller):
                waiting[request.session_id] += 1
                try:
                    yield response
                finally:
                    waiting[request.session_id] -= 1

        return subscribe_events

    def make_append(append: Callable[..., Any]) -> Callable[..., Any]:
        async def append_later(self: SqliteSessionStore, lease: Lease, *arguments: Any) -> None:
            session_id = (await self.get_inference(lease.principal, lease.inference_id)).session_id
            while waiting[session_id]:  # noqa: ASYNC110 - a bug need not be elegant
                await asyncio.sleep(0.005)
            await append(self, lease, *arguments)

        return append_later

    patch(inference_service.InferenceService, "subscribe_events", make_stream)
    patch(SqliteSessionStore, "append", make_append)


def _watcher_buffered() -> None:
    """Each stream has a queue without a bound, so that nothing has to be read from the store again."""

    def make(subscribe: Callable[..., AsyncGenerator[bytes]]) -> Callable[..., AsyncGenerator[bytes]]:
        async def subscribe_events(self: Any, request: Any, caller: Any) -> AsyncGenerator[bytes]:
            queue: asyncio.Queue[bytes | None] = asyncio.Queue()

            async def fill() -> None:
                try:
                    async for response in subscribe(self, request, caller):
                        queue.put_nowait(response)
                finally:
                    queue.put_nowait(None)

            filling = asyncio.create_task(fill())
            try:
                while (response := await queue.get()) is not None:
                    yield response
                await filling  # if it failed, so does the stream
            finally:
                filling.cancel()

        return subscribe_events

    patch(inference_service.InferenceService, "subscribe_events", make)


def _two_at_once() -> None:
    """A busy session takes another inference, and both are run."""

    def make_migrate(migrate: Callable[..., None]) -> Callable[..., None]:
        def migrate_and_admit(connection: sqlite3.Connection, *arguments: Any) -> None:
            migrate(connection, *arguments)
            connection.execute("DROP INDEX IF EXISTS inference_active")
            connection.execute("CREATE INDEX inference_active ON inference (session) WHERE is_active = 1")

        return migrate_and_admit

    def read_nobody(_connection: sqlite3.Connection, _session: int) -> list[InLine]:
        return []

    patch(sqlite, "migrate", make_migrate)
    patch(sqlite_starts, "read_line", lambda _: read_nobody)
    patch(sqlite_leases, "_SELECT_CLAIMABLE", lambda query: query.replace("w.is_active = 1 OR", "1 OR"))


def _key_forgotten() -> None:
    """A start that is repeated under its key is a start like any other."""

    def make(pass_gate: Callable[..., object]) -> Callable[..., object]:
        def pass_all(*arguments: Any) -> None:
            pass_gate(*arguments)

        return pass_all

    patch(sqlite_starts, "pass_gate", make)


def _cancel_ignored() -> None:
    """A cancel is recorded and acknowledged, and whoever runs the inference does not heed it."""

    def ignore(_: Attempt) -> None:
        return None

    patch(Attempt, "cancel", lambda _: ignore)


def _wait_stale() -> None:
    """A wait returns in time, and what it returns is what it had read when it began."""

    def make(wait: Callable[..., Any]) -> Callable[..., Any]:
        async def wait_until(
            self: Runtime, principal: str, inference: Inference, give_up: float, until: WaitUntil
        ) -> Inference:
            await wait(self, principal, inference, give_up, until)
            return inference

        return wait_until

    patch(Runtime, "_wait_until", make)


def _turn_rewritten() -> None:
    """Closing a turn touches the one before it."""

    def make(close_turn: Callable[..., int]) -> Callable[..., int]:
        def close_both(tx: Transaction, row: InferenceRow, count: int, now: datetime) -> int:
            index = row.inference.turn_index
            tx.connection.execute(
                "UPDATE turn SET close_time = close_time + 1 WHERE session = ? AND turn_index = ?",
                (row.session, -1 if index is None else index - 1),
            )
            return close_turn(tx, row, count, now)

        return close_both

    patch(sqlite_inferences, "close_turn", make)


def _recovery_stuck() -> None:
    """What a killed server ran goes back to the line after the restart, and stays QUEUED there."""

    def make(decide: Callable[..., Outcome | None]) -> Callable[..., Outcome | None]:
        def decide_to_continue(claim: Claim, *, is_overdue: bool) -> Outcome | None:
            outcome = decide(claim, is_overdue=is_overdue)
            return None if isinstance(outcome, Failed) else outcome

        return decide_to_continue

    patch(recovery, "decide_recovery", make)
    patch(sqlite_leases, "_SELECT_CLAIMABLE", lambda query: query.replace("w.is_active = 1 OR", "0 OR"))


def _read_crashes() -> None:
    """Reading an inference has a defect."""

    async def crash(*_: Any) -> None:
        msg = "planted"
        raise RuntimeError(msg)

    patch(inference_service.InferenceService, "get_inference", lambda _: crash)


PLANTS: Mapping[str, Plant] = {
    "tail-lost": Plant("Durable", _tail_lost),
    "never-synced": Plant("Durable", _never_synced, seed=POWER_CUT_SEED),
    "position-back": Plant("Ordered", _position_back),
    "chunks-swapped": Plant("Ordered", _chunks_swapped),
    "chunk-twice": Plant("Unique", _chunk_twice),
    "chunk-skipped": Plant("Gapless", _chunk_skipped),
    "end-untold": Plant("Terminal", _end_untold),
    "resumed-late": Plant("Resumable", _resumed_late),
    "watcher-blocks": Plant("Bounded", _watcher_blocks),
    "watcher-buffered": Plant("Bounded", _watcher_buffered),
    "watcher-starves": Plant("Bounded", watcher_starves),
    "two-at-once": Plant("SingleActive", _two_at_once),
    "key-forgotten": Plant("Idempotent", _key_forgotten),
    "cancel-ignored": Plant("CancelEnds", _cancel_ignored),
    "cancel-late": Plant("CancelEnds", cancel_late),
    "wait-stale": Plant("WaitAgrees", _wait_stale),
    "turn-rewritten": Plant("HistoryImmutable", _turn_rewritten),
    "recovery-stuck": Plant("NothingStuck", _recovery_stuck),
    "read-crashes": Plant("Available", _read_crashes),
    "drain-crashes": Plant("Available", drain_crashes, seed=STOP_SEED),
    "silent-failure": Plant("Available", silent_failure),
}

"""The ring of a topic: what a watcher gets from it, and when it has to read the store."""

import asyncio

from turnwire_server.domain.event import Chunk
from turnwire_server.domain.inference import InferenceState
from turnwire_server.events.fanout import RING_BYTES_MAX, Fanout
from turnwire_server.stores.base import Commit

ME, SESSION = "local", "s"


def _chunk(first: int, last: int, size: int = 1, state: InferenceState | None = None) -> Chunk:
    return Chunk(first, last, "i", state, b"x" * size)


def _commit(*chunks: Chunk) -> list[Commit]:
    return [Commit(ME, SESSION, chunks)]


def test_a_topic_without_news_has_nothing_after_any_sequence() -> None:
    with Fanout().watch(ME, SESSION) as topic:
        assert topic.chunks_after(0) == []
        assert topic.chunks_after(7) == []


def test_the_ring_continues_only_at_the_bounds_of_chunks() -> None:
    fanout = Fanout()
    with fanout.watch(ME, SESSION) as topic:
        one, two = _chunk(5, 7), _chunk(8, 8)
        fanout.publish(_commit(one, two))
        assert topic.chunks_after(4) == [one, two]
        assert topic.chunks_after(7) == [two]
        assert topic.chunks_after(8) == []
        assert topic.chunks_after(3) is None, "4 is in the store only"
        assert topic.chunks_after(5) is None, "6 is inside a chunk"


def test_the_ring_is_bounded_and_keeps_the_newest() -> None:
    fanout = Fanout()
    with fanout.watch(ME, SESSION) as topic:
        big = [_chunk(n, n, RING_BYTES_MAX // 2) for n in range(1, 6)]
        for chunk in big:
            fanout.publish(_commit(chunk))
        assert topic.chunks_after(3) == big[3:]
        assert topic.chunks_after(2) is None
        huge = _chunk(6, 6, 2 * RING_BYTES_MAX)
        fanout.publish(_commit(huge))
        assert topic.chunks_after(5) == [huge]


def test_a_gap_in_what_is_told_is_never_bridged() -> None:
    fanout = Fanout()
    with fanout.watch(ME, SESSION) as topic:
        fanout.publish(_commit(_chunk(1, 3)))
        fanout.publish(_commit(_chunk(7, 7)))
        assert topic.chunks_after(0) is None
        assert topic.chunks_after(3) is None
        assert topic.chunks_after(6) == [_chunk(7, 7)]


def test_what_is_told_twice_counts_once() -> None:
    fanout = Fanout()
    with fanout.watch(ME, SESSION) as topic:
        for _ in range(2):
            fanout.publish(_commit(_chunk(1, 2), _chunk(3, 3)))
        assert topic.chunks_after(0) == [_chunk(1, 2), _chunk(3, 3)]
        assert topic.head_sequence == 3


async def test_every_watcher_is_woken_once_per_commit() -> None:
    fanout = Fanout()
    with fanout.watch(ME, SESSION) as topic:
        waits = [asyncio.create_task(topic.advanced.wait_beyond(0)) for _ in range(3)]
        await asyncio.sleep(0)
        fanout.publish(_commit(_chunk(1, 1), _chunk(2, 2)))
        await asyncio.gather(*waits)
        assert topic.advanced.count == 1
        assert topic.transitioned.count == 0
        fanout.publish(_commit(_chunk(3, 3, state=InferenceState.FAILED)))
        await topic.transitioned.wait_beyond(0)


async def test_a_notification_before_the_wait_is_not_missed() -> None:
    fanout = Fanout()
    with fanout.watch(ME, SESSION) as topic:
        seen = topic.advanced.count
        fanout.publish(_commit(_chunk(1, 1)))
        await topic.advanced.wait_beyond(seen)  # returns at once; a missed one would wait for ever
        assert topic.advanced.count == seen + 1


async def test_deletion_closes_the_topic_and_a_new_one_begins() -> None:
    fanout = Fanout()
    with fanout.watch(ME, SESSION) as old:
        fanout.publish([Commit(ME, SESSION, is_deleted=True)])
        await old.advanced.wait_beyond(0)
        assert old.is_deleted
        with fanout.watch(ME, SESSION) as new:
            assert new is not old
            assert not new.is_closed
    assert fanout.watcher_count == 0


def test_a_principal_sees_its_own_sessions_only() -> None:
    fanout = Fanout()
    with fanout.watch("someone else", SESSION) as topic:
        fanout.publish(_commit(_chunk(1, 1)))
        assert topic.head_sequence == 0


def test_closing_reaches_those_to_come() -> None:
    fanout = Fanout()
    with fanout.watch(ME, SESSION) as early:
        fanout.close()
        assert early.is_closed
    with fanout.watch(ME, "another") as late:
        assert late.is_closed
        assert not late.is_deleted

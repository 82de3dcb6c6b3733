"""What every store promises of what is not kept for ever: sessions that expire, and the old part of logs."""

from datetime import datetime, timedelta

import pytest

from contract.store_harness import LEASELESS, Harness, admit, gather, user
from turnwire_server.domain.errors import InferenceNotFoundError, SessionNotFoundError
from turnwire_server.domain.inference import InferenceState
from turnwire_server.domain.session import NewSession, SessionChange
from turnwire_server.stores.base import Base, Commit, Retired
from turnwire_server.stores.start import Idempotency

_TTL = timedelta(seconds=60)
_MOMENT = timedelta(milliseconds=1)

# How long a key answers at least after its session is gone (contract: DeleteSession).
_KEY_AGE_MIN = timedelta(hours=24)


async def _is_there(harness: Harness, session_id: str) -> bool:
    listed = (await harness.store.list_sessions("local", {}, 1000, None)).items
    return session_id in [session.session_id for session in listed]


class ExpiryPromises:
    """Sessions are deleted once their expire_time has come."""

    async def test_a_session_is_deleted_when_its_time_has_come(self, harness: Harness) -> None:
        await harness.session("s", ttl=_TTL)
        await harness.session("for ever")
        await harness.session("longer", ttl=2 * _TTL)
        harness.now += _TTL - _MOMENT
        before = await harness.everything()
        await harness.sweep()
        assert await harness.everything() == before
        count = len(harness.commits)
        harness.now += _MOMENT
        await harness.sweep()
        assert harness.commits[count:] == [Commit("local", "s", (), is_deleted=True)]
        with pytest.raises(SessionNotFoundError):
            await harness.store.get_session("local", "s")
        assert [await _is_there(harness, name) for name in ("for ever", "longer")] == [True, True]
        assert not await harness.store.sweep(harness.now)

    async def test_it_is_gone_as_if_it_had_been_deleted(self, harness: Harness) -> None:
        guard, new = Idempotency("CreateSession", "k", b"content"), NewSession("s", ttl=_TTL)
        session, _ = await harness.store.create_session("local", new, harness.mint(), guard)
        done = await harness.turn("s", "q", "a")
        await harness.fork("f")
        harness.now += _TTL
        await harness.sweep()
        with pytest.raises(InferenceNotFoundError):
            await harness.get(done)
        with pytest.raises(SessionNotFoundError) as caught:
            await harness.store.create_session("local", new, harness.mint(), guard)
        assert caught.value.metadata == {"session_id": "s"}
        assert (await harness.session("s")).log != session.log
        assert (await harness.full("f", 0)).inference_id == done.inference_id
        harness.now += _KEY_AGE_MIN + _MOMENT
        await harness.sweep()
        _, created = await harness.store.create_session("local", NewSession("t"), harness.mint(), guard)
        assert created

    async def test_each_end_of_an_inference_renews_it(self, harness: Harness) -> None:
        await harness.session("s", ttl=_TTL)
        for _ in range(3):
            harness.now += _TTL - _MOMENT
            await harness.turn("s", "q", "a")
            assert (await harness.store.get_session("local", "s")).expire_time == harness.now + _TTL
        harness.now += _TTL - _MOMENT
        await harness.sweep()
        assert await _is_there(harness, "s")
        harness.now += _MOMENT
        await harness.sweep()
        assert not await _is_there(harness, "s")

    async def test_a_start_can_make_a_session_that_expires(self, harness: Harness) -> None:
        started = await harness.store.start(harness.command(NewSession("t", ttl=_TTL), user("q")), admit)
        await harness.cancel(started.inference)
        harness.now += _TTL
        await harness.sweep()
        assert not await _is_there(harness, "t")

    async def test_a_fork_expires_by_itself(self, harness: Harness) -> None:
        await harness.session("s")
        await harness.turn("s", "q", "a")
        before = await harness.everything()
        await harness.fork("f", ttl=_TTL)
        harness.now += _TTL
        await harness.sweep()
        assert not await _is_there(harness, "f")
        assert await harness.everything() == before

    @pytest.mark.parametrize("then", [*LEASELESS, InferenceState.RUNNING, None])
    async def test_what_has_not_ended_keeps_it(self, harness: Harness, then: InferenceState | None) -> None:
        await harness.session("s", ttl=_TTL)
        if then is None:
            inference = await harness.start("s")
        elif then is InferenceState.RUNNING:
            inference = (await harness.running("s")).inference
        else:
            inference = (await harness.leaseless("s", then)).inference
        for _ in range(3):
            harness.now += 10 * _TTL
            await harness.sweep()
            assert (await harness.get(inference)).end_time is None
            assert not await harness.store.sweep(harness.now)
        await harness.cancel(inference)
        if then is InferenceState.RUNNING:
            [running] = (await harness.store.heartbeat("me")).running
            [claim] = await harness.store.claim("me", [running.token])
            await harness.finish(claim, 0)
        await harness.sweep()
        assert await _is_there(harness, "s")
        harness.now += _TTL
        await harness.sweep()
        assert not await _is_there(harness, "s")

    async def test_what_ends_in_a_line_of_many(self, harness: Harness) -> None:
        await harness.session("s", ttl=_TTL)
        first, second = await harness.start("s"), await harness.start("s")
        harness.now += 2 * _TTL
        await harness.sweep()
        await harness.cancel(first)
        harness.now += 2 * _TTL
        await harness.sweep()
        assert await _is_there(harness, "s")
        await harness.cancel(second)
        harness.now += _TTL
        await harness.sweep()
        assert not await _is_there(harness, "s")

    async def test_a_deadline_and_an_expiry_at_once(self, harness: Harness) -> None:
        await harness.session("s", ttl=_TTL)
        inference = await harness.start("s", timeout=_TTL)
        harness.now += 2 * _TTL
        await harness.sweep()
        assert (await harness.get(inference)).state is InferenceState.FAILED  # which renews its session
        harness.now += _TTL
        await harness.sweep()
        assert not await _is_there(harness, "s")

    async def test_everything_that_expired_is_deleted_in_the_end(self, harness: Harness) -> None:
        for number in range(350):
            await harness.session(f"s{number}", ttl=_TTL)
        for number in range(0, 350, 7):
            await harness.start(f"s{number}")
        harness.now += _TTL
        await harness.sweep()
        listed = (await harness.store.list_sessions("local", {}, 1000, None)).items
        assert {session.session_id for session in listed} == {f"s{number}" for number in range(0, 350, 7)}
        assert sum(commit.is_deleted for commit in harness.commits) == 300

    async def test_an_update_does_not_renew_it(self, harness: Harness) -> None:
        session = await harness.session("s", ttl=_TTL)
        harness.now += _TTL - _MOMENT
        renamed = await harness.store.update_session("local", "s", SessionChange("x"), None, harness.mint())
        assert renamed.expire_time == session.expire_time
        harness.now += _MOMENT
        await harness.sweep()
        assert not await _is_there(harness, "s")


async def _retired(harness: Harness, ended_before: datetime | None = None, limit: int = 9) -> dict[str, int]:
    """Return up to where the logs may go, by session_id; of what ended by now, unless another moment is given."""
    moment = harness.now + _MOMENT if ended_before is None else ended_before
    found = await harness.store.find_retired(moment, limit, 0)
    assert len(found) == len({each.session_id for each in found}) <= limit
    return {each.session_id: each.through_sequence for each in found}


async def _cut(harness: Harness, session_id: str = "s") -> int:
    """Cut a log as far as it may; return how far that was."""
    through = (await _retired(harness)).get(session_id, 0)
    if through:
        await harness.store.compact("local", session_id, Base(through, b"fold"))
    return through


class RetentionPromises:
    """Finding the old part of logs. A turn of the harness leaves five events, one that was never claimed two."""

    async def test_nothing_is_old(self, harness: Harness) -> None:
        assert await _retired(harness) == {}
        await harness.session("s")
        assert await _retired(harness) == {}
        await harness.running("s")
        assert await _retired(harness) == {}

    async def test_what_ended_before_a_moment_may_go(self, harness: Harness) -> None:
        await harness.session("s", principal="other")
        await harness.session("s")
        await harness.turn("s", "q", "a")
        assert await _retired(harness, harness.now) == {}
        found = await harness.store.find_retired(harness.now + _MOMENT, 9, 0)
        assert found == (Retired("local", "s", 5),)
        assert await harness.store.find_retired(harness.now + _MOMENT, 9, 0) == found  # nobody has cut it yet
        await harness.store.compact("local", "s", Base(5, b"fold"))
        assert await _retired(harness) == {}

    async def test_it_reaches_up_to_what_ended_later(self, harness: Harness) -> None:
        await harness.session("s")
        moments: list[datetime] = []
        for number in range(4):
            await harness.turn("s", f"q{number}", "a")
            harness.now += timedelta(seconds=1)
            moments.append(harness.now)
        assert [(await _retired(harness, moment)).get("s") for moment in moments] == [5, 10, 15, 20]
        await harness.store.compact("local", "s", Base(10, b"fold"))
        assert [(await _retired(harness, moment)).get("s") for moment in moments] == [None, None, 15, 20]

    async def test_it_reaches_up_to_what_has_not_ended(self, harness: Harness) -> None:
        await harness.session("s")
        await harness.turn("s", "q0", "a0")
        claim = await harness.running("s", user("q1"))
        queued = await harness.start("s")
        await harness.store.append(claim.lease, 0, harness.deltas(claim, "a", "b"))
        assert await _cut(harness) == 5
        await harness.cancel(queued)  # it came later, and the one that was there first has not ended
        assert await _retired(harness) == {}
        await harness.finish(claim, 2)
        head = (await harness.store.get_session("local", "s")).head_sequence
        assert await _cut(harness) == head
        await harness.turn("s", "q2", "a2")
        assert await _cut(harness) == head + 5

    async def test_one_that_ended_first_and_began_last(self, harness: Harness) -> None:
        await harness.session("s")
        claim = await harness.running("s", user("q0"))
        queued = await harness.start("s")
        harness.now += timedelta(seconds=1)
        await harness.cancel(queued)
        ended = harness.now + _MOMENT
        harness.now += timedelta(seconds=1)
        await harness.finish(claim, 0)
        assert await _retired(harness, ended) == {}
        assert await _retired(harness, harness.now) == {}
        assert await _retired(harness) == {"s": 7}

    async def test_one_that_began_within_another_one(self, harness: Harness) -> None:
        await harness.session("s")
        claim = await harness.running("s", user("q0"))  # 1 to 3
        await harness.start("s")  # 4
        await harness.finish(claim, 0)  # 5 and 6
        old = harness.now + _MOMENT
        harness.now += timedelta(seconds=1)
        second = await harness.claim()  # 7 and 8
        assert await _retired(harness, old) == {"s": 3}
        await harness.store.compact("local", "s", Base(3, b"fold"))
        assert await _retired(harness, old) == {}
        await harness.finish(second, 0)
        assert await _retired(harness, old) == {}
        assert await _cut(harness) == 10

    @pytest.mark.parametrize("cut", range(1, 11))
    async def test_a_log_that_was_cut_anywhere(self, harness: Harness, cut: int) -> None:
        await harness.session("s")
        for number in range(3):
            harness.now += timedelta(seconds=1)
            await harness.turn("s", f"q{number}", "a")
        await harness.store.compact("local", "s", Base(cut, b"fold"))
        second = harness.now - _MOMENT  # then the second one had ended, and the third had not
        assert (await _retired(harness, second)).get("s", cut) == 10
        assert await _retired(harness) == {"s": 15}
        assert await _retired(harness, second - timedelta(seconds=1)) == ({"s": 5} if cut < 5 else {})

    async def test_an_old_one_that_has_not_ended_hides_no_other_log(self, harness: Harness) -> None:
        for number in range(20):
            await harness.session(f"stuck{number}")
            await harness.waiting(f"stuck{number}")
            await harness.cancel(await harness.start(f"stuck{number}"))
        await harness.session("s")
        await harness.turn("s", "q", "a")
        harness.now += timedelta(days=1000)
        for _ in range(2):
            assert await _retired(harness, limit=1) == {"s": 5}

    async def test_no_more_are_returned_than_asked_for(self, harness: Harness) -> None:
        left = {f"s{number}" for number in range(7)}
        for name in sorted(left):
            await harness.session(name)
            await harness.turn(name, "q", "a")
        while left:
            found = await _retired(harness, limit=3)
            assert len(found) == min(3, len(left))
            assert found.keys() <= left
            for name, through in found.items():
                await harness.store.compact("local", name, Base(through, b"fold"))
                left.remove(name)
        assert await _retired(harness) == {}

    async def test_some_are_left_out(self, harness: Harness) -> None:
        for number in range(7):
            await harness.session(f"s{number}")
            await harness.turn(f"s{number}", "q", "a")  # all at the same moment
        old = harness.now + _MOMENT
        found = await harness.store.find_retired(old, 9, 0)
        assert len(found) == 7
        for skip in range(9):
            assert await harness.store.find_retired(old, 3, skip) == found[skip : skip + 3]

    async def test_a_deleted_session_has_no_log(self, harness: Harness) -> None:
        await harness.session("s")
        await harness.turn("s", "q", "a")
        await harness.fork("f")
        await harness.delete("s")
        assert await _retired(harness) == {}
        await harness.turn("f", "q", "a")
        assert await _retired(harness) == {"f": 5}

    async def test_what_was_only_just_written(self, harness: Harness) -> None:
        await harness.session("s")
        claim = await harness.running("s")
        harness.now += timedelta(seconds=1)
        results = await gather(  # a store that commits in groups has these in one transaction
            harness.store.append(claim.lease, 0, harness.deltas(claim, "a")),
            harness.finish(claim, 1),
            harness.start("s"),
            harness.store.compact("local", "s", Base(5, b"most")),
        )
        assert not [result for result in results if isinstance(result, BaseException)]
        assert await _retired(harness) == {"s": 6}
        await harness.store.compact("local", "s", Base(6, b"all"))
        assert await _retired(harness) == {}
        await harness.finish(await harness.claim(), 0)
        assert await _cut(harness) == 11

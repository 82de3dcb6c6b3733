"""What every store promises of deleting sessions, and of the keys that outlive them."""

from datetime import timedelta

import pytest

from contract.store_calls import calls_about
from contract.store_harness import LEASELESS, Harness, admit, events_of, gather, key, llm, texts, user
from turnwire_server.domain.errors import (
    IdempotencyKeyReusedError,
    InferenceNotFoundError,
    SessionBusyError,
    SessionNotFoundError,
    TurnNotFoundError,
)
from turnwire_server.domain.event import Cancelled, InferenceFinished, TurnClosed
from turnwire_server.domain.inference import InferenceState
from turnwire_server.domain.session import NewSession
from turnwire_server.stores.base import Base, Commit
from turnwire_server.stores.lease import Heartbeat, Step
from turnwire_server.stores.start import Idempotency, StartCommand

# How long a key answers at least after its session is gone (contract: DeleteSession).
_KEY_AGE_MIN = timedelta(hours=24)


class DeletionPromises:
    """Deleting sessions."""

    async def test_a_deleted_session_is_gone_with_all_that_belongs_to_it(self, harness: Harness) -> None:
        log = (await harness.session("s")).log
        done = await harness.turn("s", "hi", "ho")
        await harness.delete("s")
        assert harness.commits[-1] == Commit("local", "s", (), is_deleted=True)
        with pytest.raises(InferenceNotFoundError):
            await harness.get(done)
        assert (await harness.store.list_sessions("local", {}, 9, None)).items == ()
        again = await harness.session("s")
        for index in (0, None):
            with pytest.raises(TurnNotFoundError):
                await harness.full("s", index)
        assert (again.head_sequence, again.turn_count) == (0, 0)
        assert again.log != log
        assert (await harness.chunks("s"), await harness.store.read_base("local", "s")) == ((), Base())

    async def test_a_busy_session_is_deleted_only_by_force(self, harness: Harness) -> None:
        await harness.session("s")
        first = await harness.start("s")
        await harness.start("s")
        before = await harness.everything()
        with pytest.raises(SessionBusyError) as caught:
            await harness.delete("s")
        assert caught.value.metadata == {"session_id": "s", "inference_id": first.inference_id}
        assert await harness.everything() == before
        claim = await harness.claim()
        await harness.store.delete_session("local", "s", 1, force=True)
        assert await harness.store.claim("me", [claim.lease.token]) == ()
        assert await harness.claims() == ()
        assert await harness.store.heartbeat("me") == Heartbeat()

    @pytest.mark.parametrize("then", LEASELESS)
    async def test_what_holds_no_lease_keeps_a_session_busy(self, harness: Harness, then: InferenceState) -> None:
        await harness.session("s")
        claim = await harness.leaseless("s", then)
        with pytest.raises(SessionBusyError) as caught:
            await harness.delete("s")
        assert caught.value.metadata["inference_id"] == claim.inference.inference_id
        await harness.delete("s", force=True)
        assert harness.commits[-1].is_deleted
        payloads = [event.payload for event in events_of(harness.commits[-1].chunks)]
        assert [type(payload) for payload in payloads] == [TurnClosed, InferenceFinished]

    async def test_what_has_not_ended_is_cancelled_in_the_commit_that_deletes(self, harness: Harness) -> None:
        await harness.session("s")
        ended = await harness.turn("s", "a", "A")
        claim = await harness.running("s", user("b"))
        await harness.store.commit_step(claim.lease, 0, Step(1, (llm("B"),)))
        queued = [await harness.start("s") for _ in range(2)]
        head, count = (await harness.store.get_session("local", "s")).head_sequence, len(harness.commits)
        await harness.delete("s", force=True)
        [commit] = harness.commits[count:]
        assert (commit.principal, commit.session_id, commit.is_deleted) == ("local", "s", True)
        assert commit.chunks[0].first_sequence == head + 1
        events = events_of(commit.chunks)
        ends = {event.inference_id: event.payload for event in events if isinstance(event.payload, InferenceFinished)}
        assert ends.keys() == {each.inference_id for each in (claim.inference, *queued)}
        assert {type(end.outcome) for end in ends.values()} == {Cancelled}
        assert [event.payload for event in events if isinstance(event.payload, TurnClosed)] == [TurnClosed(1, 4)]
        moved = {chunk.inference_id: chunk.state for chunk in commit.chunks}
        assert moved == dict.fromkeys(ends, InferenceState.CANCELLED)
        for inference in (ended, claim.inference, *queued):
            with pytest.raises(InferenceNotFoundError):
                await harness.get(inference)
        await harness.sweep()
        assert len(harness.commits) == count + 1

    async def test_a_deleted_session_is_not_found_at_once(self, harness: Harness) -> None:
        await harness.session("s")
        await harness.running("s")
        await harness.delete("s", force=True)
        for call in calls_about(harness, "s"):
            with pytest.raises(SessionNotFoundError):
                await call

    async def test_a_name_is_free_at_once(self, harness: Harness) -> None:
        logs: set[str] = set()
        for _ in range(3):  # without a sweep: what is left of them is in nobody's way
            logs.add((await harness.session("s")).log)
            await harness.turn("s", "the same", "as ever")
            await harness.running("s")
            await harness.start("s")
            await harness.delete("s", force=True)
        session = await harness.session("s")
        assert session.log not in logs
        assert len(logs) == 3
        await harness.turn("s", "new", "words")
        await harness.sweep()
        assert texts(await harness.full("s", None)) == ["new", "words"]
        assert len(await harness.events("s")) == 5

    async def test_only_the_session_that_has_the_log_is_deleted(self, harness: Harness) -> None:
        old = await harness.session("s")
        await harness.store.delete_session("local", "s", None, force=False, log=old.log)
        new = await harness.session("s")
        for _ in range(2):  # sent again, by somebody who got no answer
            with pytest.raises(SessionNotFoundError) as caught:
                await harness.store.delete_session("local", "s", None, force=True, log=old.log)
            assert caught.value.metadata == {"session_id": "s"}
        assert await harness.store.get_session("local", "s") == new
        await harness.store.delete_session("local", "s", None, force=False, log=new.log)
        with pytest.raises(SessionNotFoundError):
            await harness.store.get_session("local", "s")

    async def test_the_last_of_two_deletions_is_refused(self, harness: Harness) -> None:
        await harness.session("s")
        results = await gather(*(harness.delete("s") for _ in range(2)))
        assert results[0] is None
        assert isinstance(results[1], SessionNotFoundError)

    async def test_what_is_deleted_right_after_it_was_written(self, harness: Harness) -> None:
        log = (await harness.session("s")).log
        claim = await harness.running("s")
        results = await gather(  # a store that commits in groups has these in one transaction
            *(harness.start("s") for _ in range(5)),
            harness.store.append(claim.lease, 0, harness.deltas(claim, "a", "b")),
            harness.store.commit_step(claim.lease, 2, Step(1, (llm("A"),), events=tuple(harness.deltas(claim, "c")))),
            harness.delete("s", force=True),
            *(harness.store.sweep(harness.now) for _ in range(3)),
            harness.session("s"),
            harness.start("s"),
            harness.store.sweep(harness.now),
        )
        assert not [result for result in results if isinstance(result, BaseException)]
        await harness.sweep()
        session = await harness.store.get_session("local", "s")
        assert (session.log != log, session.queued_count, session.head_sequence) == (True, 1, 1)

    async def test_a_sweep_leaves_alone_what_was_not_deleted(self, harness: Harness) -> None:
        for session_id in ("a", "b"):
            await harness.session(session_id)
            await harness.turn(session_id, "same question", "same answer")
        claim = await harness.running("b", user("more"))
        await harness.delete("a")
        before = await harness.everything()
        await harness.sweep()
        assert await harness.everything() == before
        assert await harness.again(claim) == claim

    async def test_a_sweep_says_when_there_is_nothing_more(self, harness: Harness) -> None:
        assert not await harness.store.sweep(harness.now)
        for number in range(40):
            await harness.session(f"s{number}")
            await harness.turn(f"s{number}", "q", *("a" * 10_000 for _ in range(10)))
            await harness.delete(f"s{number}")
        await harness.sweep()
        assert not await harness.store.sweep(harness.now)


class KeyPromises:
    """Idempotency keys outlive their sessions."""

    async def test_the_key_of_a_creation_outlives_its_session_for_a_day(self, harness: Harness) -> None:
        guard = Idempotency("CreateSession", "k", b"content")
        create, new = harness.store.create_session, NewSession("s")
        await create("local", new, harness.mint(), guard)
        harness.now += timedelta(days=30)
        await harness.delete("s")
        harness.now += _KEY_AGE_MIN
        await harness.sweep()
        with pytest.raises(SessionNotFoundError):
            await create("local", new, harness.mint(), guard)
        harness.now += timedelta(seconds=1)
        await harness.sweep()
        _, created = await create("local", new, harness.mint(), guard)
        assert created

    async def test_the_key_of_a_start_outlives_its_session_for_a_day(self, harness: Harness) -> None:
        await harness.session("s")
        await harness.start("s", idempotency=key("k"))
        harness.now += timedelta(days=30)
        await harness.delete("s", force=True)
        await harness.sweep()
        await harness.session("s")
        harness.now += _KEY_AGE_MIN
        await harness.sweep()
        with pytest.raises(SessionNotFoundError) as caught:
            await harness.start("s", idempotency=key("k"))
        assert caught.value.metadata == {"session_id": "s"}
        with pytest.raises(IdempotencyKeyReusedError):
            await harness.start("s", idempotency=key("k", b"other"))
        harness.now += timedelta(seconds=1)
        await harness.sweep()
        await harness.start("s", idempotency=key("k", b"other"))

    async def test_a_key_lives_as_long_as_its_session(self, harness: Harness) -> None:
        await harness.session("s")
        first = await harness.start("s", idempotency=key("k"))
        harness.now += timedelta(days=365)
        await harness.sweep()
        assert await harness.start("s", idempotency=key("k")) == first

    async def test_the_key_of_a_start_that_made_its_session(self, harness: Harness) -> None:
        def command() -> StartCommand:
            return harness.command(NewSession(harness.mint()), user("hi"), idempotency=key("k"))

        first = await harness.store.start(command(), admit)
        again = await harness.store.start(command(), admit)
        assert (again.inference, again.created) == (first.inference, False)
        assert len((await harness.store.list_sessions("local", {}, 9, None)).items) == 1
        await harness.delete(first.inference.session_id, force=True)
        with pytest.raises(SessionNotFoundError) as caught:
            await harness.store.start(command(), admit)
        assert caught.value.metadata == {"session_id": first.inference.session_id}

"""What every store promises of owners: they register, beat, are declared dead, and lose track of what they run."""

from dataclasses import replace

import pytest

from contract.store_harness import Harness, by_call, gather, llm
from turnwire_server.domain.inference import InferenceState
from turnwire_server.stores.lease import Claim, DeclaredDead, Effect, Fenced, Heartbeat, Running, Step


async def _beat(harness: Harness, owner: str = "me") -> int:
    """Return the beat of an owner that runs something, as others see it."""
    await harness.store.register("watcher")
    return (await harness.store.heartbeat("watcher")).beats[owner]


async def _kill(harness: Harness, owner: str = "me") -> None:
    assert await harness.store.declare_dead(owner, await _beat(harness, owner))


def _running(claim: Claim, *, is_cancel_requested: bool = False) -> Running:
    return Running(claim.inference.inference_id, claim.lease.token, is_cancel_requested)


class OwnerPromises:
    """Registering, and being heard of."""

    async def test_an_owner_claims_once_it_is_registered(self, harness: Harness) -> None:
        await harness.session("s")
        await harness.start("s")
        before = await harness.everything()
        for call in (harness.claims("you"), harness.store.claim("you", []), harness.store.heartbeat("you")):
            with pytest.raises(DeclaredDead):
                await call
        assert await harness.everything() == before
        await harness.store.register("you")
        assert await harness.store.heartbeat("you") == Heartbeat()
        await harness.claim("you")

    async def test_registering_again_changes_nothing(self, harness: Harness) -> None:
        await harness.session("s")
        claim = await harness.running("s")
        await harness.store.heartbeat("me")
        beat = await _beat(harness)
        await harness.store.register("me")
        assert await _beat(harness) == beat
        assert (await harness.store.heartbeat("me")).running == (_running(claim),)
        await harness.finish(claim, 0)

    async def test_a_heartbeat_tells_what_runs_and_what_is_to_be_cancelled(self, harness: Harness) -> None:
        claims: list[Claim] = []
        for session_id in ("a", "b", "c"):
            await harness.session(session_id)
            claims.append(await harness.running(session_id))
        await harness.start("a")
        assert set((await harness.store.heartbeat("me")).running) == set(map(_running, claims))
        await harness.cancel(claims[0].inference)
        await harness.finish(claims[2], 0)
        told = (await harness.store.heartbeat("me")).running
        assert set(told) == {_running(claims[0], is_cancel_requested=True), _running(claims[1])}
        await harness.store.register("you")
        assert (await harness.store.heartbeat("you")).running == ()

    @pytest.mark.parametrize("then", [InferenceState.WAITING_FOR_TOOLS, InferenceState.PAUSED, InferenceState.QUEUED])
    async def test_what_released_its_lease_is_not_told(self, harness: Harness, then: InferenceState) -> None:
        await harness.session("s")
        await harness.leaseless("s", then)
        await harness.store.register("you")
        assert await harness.store.heartbeat("me") == Heartbeat()
        assert await harness.store.heartbeat("you") == Heartbeat()

    async def test_beats_go_up_while_something_runs(self, harness: Harness) -> None:
        await harness.session("s")
        claim = await harness.running("s")
        seen = [await _beat(harness)]
        for _ in range(3):
            await harness.store.heartbeat("me")
            seen.append(await _beat(harness))
        assert seen == sorted(set(seen))
        await harness.finish(claim, 0)
        for _ in range(3):
            await harness.store.heartbeat("me")
        await harness.running("s")
        assert await _beat(harness) == seen[-1] + 1, "the claim, but none of those with nothing to run"

    async def test_a_heartbeat_tells_of_others_that_run_something(self, harness: Harness) -> None:
        for owner in ("you", "idle"):
            await harness.store.register(owner)
        await harness.session("s")
        for owner in ("me", "you"):
            await harness.store.heartbeat(owner)
            assert (await harness.store.heartbeat("idle")).beats == {}
        claim = await harness.running("s")
        assert (await harness.store.heartbeat("me")).beats == {}  # not of itself
        assert (await harness.store.heartbeat("you")).beats.keys() == {"me"}
        await harness.session("t")
        await harness.start("t")
        await harness.claim("you")
        assert (await harness.store.heartbeat("me")).beats.keys() == {"you"}
        assert (await harness.store.heartbeat("idle")).beats.keys() == {"me", "you"}
        await harness.finish(claim, 0)
        assert (await harness.store.heartbeat("idle")).beats.keys() == {"you"}


class DeathPromises:
    """Declaring an owner dead, and taking over what it ran."""

    async def test_an_owner_that_has_beaten_since_lives(self, harness: Harness) -> None:
        await harness.session("s")
        claim = await harness.running("s")
        old = await _beat(harness)
        await harness.store.heartbeat("me")
        before = await harness.everything()
        assert not await harness.store.declare_dead("me", old)
        assert not await harness.store.declare_dead("me", old + 1000)
        assert await harness.everything() == before
        assert (await harness.store.heartbeat("me")).running == (_running(claim),)
        assert await harness.claims("watcher") == ()
        await harness.finish(claim, 0)

    async def test_who_was_declared_dead_can_do_nothing(self, harness: Harness) -> None:
        for session_id in ("a", "b", "c"):
            await harness.session(session_id)
        first, second = await harness.running("a"), await harness.running("b")
        beat = await _beat(harness)
        before = await harness.everything()
        assert await harness.store.declare_dead("me", beat)
        assert await harness.everything() == before  # what it ran goes on RUNNING, and no event tells of it
        for claim in (first, second):
            with pytest.raises(Fenced):
                await harness.store.append(claim.lease, 0, harness.deltas(claim, "x"))
        await harness.start("c")
        for call in (harness.claims(), harness.store.claim("me", [first.lease.token]), harness.store.heartbeat("me")):
            with pytest.raises(DeclaredDead):
                await call
        assert (await harness.store.heartbeat("watcher")).beats == {}

    async def test_the_dead_stay_dead(self, harness: Harness) -> None:
        await harness.session("s")
        await harness.running("s")
        beat = await _beat(harness)
        for seen in (beat, beat, beat + 1, 0):
            assert await harness.store.declare_dead("me", seen)
        taken = await harness.claim("watcher")
        assert await harness.store.declare_dead("me", beat)
        assert await harness.again(taken, "watcher") == taken

    async def test_all_that_the_dead_ran_is_taken_over(self, harness: Harness) -> None:
        claims: list[Claim] = []
        for session_id in ("a", "b", "c"):
            await harness.session(session_id)
            claims.append(await harness.running(session_id))
        await harness.store.register("you")
        await harness.session("yours")
        await harness.start("yours")
        yours = await harness.claim("you")
        await _kill(harness)
        taken = await harness.claims("you")
        assert [claim.inference for claim in taken] == [claim.inference for claim in claims]
        assert all(claim.is_lost for claim in taken)
        assert not {claim.lease.token for claim in taken} & {claim.lease.token for claim in claims}
        assert set((await harness.store.heartbeat("you")).running) == set(map(_running, (yours, *taken)))
        await harness.finish(yours, 0)

    async def test_of_a_heartbeat_and_a_death_one_wins(self, harness: Harness) -> None:
        for number in range(6):
            owner, session_id = f"owner {number}", f"s{number}"
            await harness.store.register(owner)
            await harness.session(session_id)
            await harness.start(session_id)
            claim = await harness.claim(owner)
            beat = await _beat(harness, owner)
            calls = (harness.store.heartbeat(owner), harness.store.declare_dead(owner, beat))
            results = await gather(*(calls if number % 2 else reversed(calls)))
            is_dead = True in results
            assert is_dead == any(isinstance(result, DeclaredDead) for result in results)
            if not is_dead:
                await harness.store.append(claim.lease, 0, harness.deltas(claim, "x"))
                await harness.lose(claim, owner)
            await harness.finish(await harness.claim(), 0 if is_dead else 1)

    async def test_nothing_is_claimed_by_the_dead(self, harness: Harness) -> None:
        await harness.session("a")
        await harness.running("a")
        beat = await _beat(harness)
        await harness.session("b")
        await harness.start("b")
        results = await gather(harness.store.declare_dead("me", beat), harness.claims())
        assert results[0] is True
        assert isinstance(results[1], DeclaredDead)
        assert len(await harness.claims("watcher")) == 2

    async def test_who_claims_beats_with_that(self, harness: Harness) -> None:
        await harness.session("a")
        await harness.running("a")
        beat = await _beat(harness)
        await harness.session("b")
        await harness.start("b")
        results = await gather(harness.claims(), harness.store.declare_dead("me", beat))
        assert results[1] is False
        assert await _beat(harness) > beat
        assert await harness.claims() == ()
        assert await harness.store.declare_dead("me", await _beat(harness))

    async def test_only_what_is_lost_is_claimed_if_that_is_asked_for(self, harness: Harness) -> None:
        for session_id in ("lost", "queued"):
            await harness.session(session_id)
        lost = await harness.running("lost")
        await harness.start("queued")
        assert await harness.store.claim("me", ["a", "b"], only_lost=True) == ()
        await harness.lose(lost)
        [taken] = await harness.store.claim("me", ["a", "b"], only_lost=True)
        assert (taken.inference.inference_id, taken.is_lost) == (lost.inference.inference_id, True)
        assert await harness.store.claim("me", ["a", "b"], only_lost=True) == (taken,)
        [queued] = await harness.claims()
        assert queued.inference.session_id == "queued"


class RevokePromises:
    """What an owner lost track of."""

    async def test_what_is_revoked_waits_to_be_recovered(self, harness: Harness) -> None:
        await harness.session("s")
        claim = await harness.running("s")
        await harness.store.append(claim.lease, 0, harness.deltas(claim, "x", "y"))
        before = await harness.everything()
        await harness.lose(claim)
        assert await harness.everything() == before
        assert await harness.store.heartbeat("me") == Heartbeat()
        with pytest.raises(Fenced):
            await harness.store.append(claim.lease, 2, harness.deltas(claim, "z"))
        taken = await harness.claim()
        assert await harness.everything() == before
        now = replace(claim.inference, last_sequence=5)
        assert taken == replace(claim, lease=taken.lease, inference=now, position=2, is_lost=True)
        assert taken.lease.token != claim.lease.token
        await harness.store.append(taken.lease, 2, harness.deltas(taken, "z"))

    async def test_an_owner_loses_only_what_it_runs(self, harness: Harness) -> None:
        claims: dict[str, Claim] = {}
        for session_id in ("lost", "kept", "ended"):
            await harness.session(session_id)
            claims[session_id] = await harness.running(session_id)
        await harness.finish(claims["ended"], 0)
        await harness.start("kept")
        await harness.session("theirs")
        await harness.start("theirs")
        await harness.store.register("you")
        theirs = await harness.claim("you")
        await harness.session("waits")
        waits = await harness.waiting("waits")
        named = [each.lease.token for each in (claims["lost"], claims["ended"], theirs, waits)]
        for _ in range(2):
            await harness.store.revoke("me", [*named, "nothing"])
        taken = await harness.claim("you")
        assert taken.inference == claims["lost"].inference
        await harness.store.revoke("me", named)  # sent again: it is not the owner's any more
        await harness.finish(taken, 0)
        await harness.finish(theirs, 0)
        await harness.finish(claims["kept"], 0)
        await harness.amend(waits)

    async def test_nothing_is_revoked_by_nobody(self, harness: Harness) -> None:
        await harness.session("s")
        claim = await harness.running("s")
        await harness.store.revoke("me", [])
        await harness.store.revoke("nobody", [claim.lease.token])
        await harness.finish(claim, 0)

    async def test_a_lost_claim_has_what_was_committed(self, harness: Harness) -> None:
        await harness.session("s")
        claim = await harness.running("s")
        step = Step(1, (llm("A"),), events=tuple(harness.deltas(claim, "a")), checkpoint=b"one")
        committed = await harness.store.commit_step(claim.lease, 0, step)
        effects = (Effect("open"), Effect("done"))
        await harness.store.record_effects(claim.lease, 1, effects, harness.deltas(claim, "b"))
        await harness.store.record_effects(claim.lease, 2, [Effect("done", b"result")])
        await harness.lose(claim)
        for owner in ("you", "them"):  # lost, and lost again
            await harness.store.register(owner)
            lost = await harness.claim(owner)
            assert (lost.is_lost, lost.inference.attempt) == (True, 0)
            assert (lost.position, lost.step, lost.checkpoint) == (2, 1, b"one")
            assert lost.holds_through == committed.last_sequence < lost.inference.last_sequence
            assert by_call(lost.effects) == {"open": None, "done": b"result"}
            assert await harness.again(lost, owner) == lost
            await harness.lose(lost, owner)

    @pytest.mark.parametrize("limit", [1, 2, 4])
    async def test_what_is_lost_and_what_is_next_come_oldest_first(self, harness: Harness, limit: int) -> None:
        for session_id in "abcd":
            await harness.session(session_id)
        await harness.start("a")
        [a] = await harness.claims()
        await harness.start("b")
        [b] = await harness.claims()
        await harness.start("c")
        [c] = await harness.claims()
        await harness.start("d")
        await harness.lose(b)
        await harness.store.hand_back(c.lease, 0, is_loss=False)
        await harness.store.hand_back(a.lease, 0, is_loss=True)
        claims = [claim for _ in range(4) for claim in await harness.claims(limit=limit)]
        assert [claim.inference.session_id for claim in claims] == ["a", "b", "c", "d"]
        assert [claim.is_lost for claim in claims] == [False, True, False, False]

    async def test_what_is_lost_is_alone_in_its_session(self, harness: Harness) -> None:
        await harness.session("s")
        claim = await harness.running("s")
        await harness.start("s")
        await harness.lose(claim)
        [lost] = await harness.claims()
        assert lost.inference == claim.inference
        assert await harness.claims() == ()

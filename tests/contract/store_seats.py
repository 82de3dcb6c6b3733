"""What every store promises of a start that brings a seat: what has nobody before it is claimed with it at once."""

from datetime import timedelta

import pytest

from contract.store_harness import LEASELESS, Harness, admit, gather, key, llm, user
from turnwire_server.domain.errors import EmptyTurnError
from turnwire_server.domain.event import InferenceQueued, InferenceStarted, TurnOpened
from turnwire_server.domain.inference import ConflictPolicy, InferenceState, Overrides
from turnwire_server.domain.session import NewSession
from turnwire_server.domain.turn import TurnView
from turnwire_server.stores.lease import Claim
from turnwire_server.stores.start import Admission, Seat, SessionState, StartCommand, Started

REJECT, ENQUEUE, INTERRUPT, ROLLBACK = ConflictPolicy


def _refuse(_: StartCommand, state: SessionState) -> Admission:
    raise EmptyTurnError(session_id=state.session.session_id)


def _claim_of(started: Started) -> Claim:
    assert started.claim
    return started.claim


class SeatPromises:
    """Starting what runs at once."""

    async def test_a_start_with_a_seat_runs(self, harness: Harness) -> None:
        await harness.session("s")
        command = harness.command("s", user("a"), user("b"), overrides=Overrides(engine_options="{}"))
        started = await harness.store.start(command, admit, Seat("me", "t"))
        claim, inference = _claim_of(started), started.inference
        assert started.created
        assert (inference.state, inference.start_time) == (InferenceState.RUNNING, harness.now)
        assert (inference.turn_index, inference.queue_position) == (0, None)
        assert (inference.first_sequence, inference.last_sequence) == (1, 3)
        assert (claim.lease.principal, claim.lease.inference_id) == ("local", command.inference_id)
        assert (claim.lease.token, claim.overrides, claim.is_lost) == ("t", command.overrides, False)
        assert (claim.position, claim.step, claim.holds_through) == (0, 0, 3)
        queued, began, opened = await harness.payloads("s")
        assert (queued, opened) == (InferenceQueued(1), TurnOpened(0, 2, None))
        assert began == InferenceStarted("scripted", "default", "m1")
        assert await harness.get(inference) == inference == claim.inference
        assert (await harness.chunks("s"))[-1].state is InferenceState.RUNNING

    async def test_it_is_as_if_it_had_been_claimed(self, harness: Harness) -> None:
        for session_id in "st":
            await harness.session(session_id)
        seated = _claim_of(await harness.store.start(harness.command("s", user("hi")), admit, Seat("me", "t")))
        await harness.finish(seated, 0, llm("yes"))
        claim = await harness.running("t", user("hi"))
        await harness.finish(claim, 0, llm("yes"))
        assert await harness.payloads("s") == await harness.payloads("t")
        now, then = await harness.get(seated.inference), await harness.get(claim.inference)
        assert (now.state, now.last_sequence) == (then.state, then.last_sequence)
        assert await harness.claims() == ()

    async def test_the_turn_that_it_brings_is_the_turn(self, harness: Harness) -> None:
        first = harness.command(NewSession("s"), user("a"), data={"app.of@v1": "1"}, metadata={"app.by@v1": "2"})
        claim = _claim_of(await harness.store.start(first, admit, Seat("me", "t1")))
        page = await harness.store.get_turn("local", "s", 0, TurnView.FULL, 0, 10)
        assert claim.turn in (None, page.turn)
        await harness.finish(claim, 0, llm("b"))
        second = _claim_of(await harness.store.start(harness.command("s", user("c")), admit, Seat("me", "t2")))
        page = await harness.store.get_turn("local", "s", 1, TurnView.FULL, 0, 10)
        assert second.turn in (None, page.turn)
        assert (page.turn.block_count, page.turn.parent, dict(page.turn.data)) == (3, 0, {"app.of@v1": "1"})
        assert (await harness.again(second)).turn in (None, page.turn)

    @pytest.mark.parametrize("policy", [ENQUEUE, INTERRUPT, ROLLBACK])
    async def test_what_has_somebody_before_it_waits(self, harness: Harness, policy: ConflictPolicy) -> None:
        await harness.session("s")
        await harness.running("s")
        command = harness.command("s", user("hi"), conflict_policy=policy)
        started = await harness.store.start(command, admit, Seat("me", "t"))
        assert (started.inference.state, started.claim) == (InferenceState.QUEUED, None)
        assert await harness.store.claim("me", ["t"]) == ()

    @pytest.mark.parametrize("then", LEASELESS)
    async def test_nobody_overtakes_what_has_begun(self, harness: Harness, then: InferenceState) -> None:
        await harness.session("s")
        await harness.leaseless("s", then)
        command = harness.command("s", user("hi"), conflict_policy=ENQUEUE)
        started = await harness.store.start(command, admit, Seat("me", "t"))
        assert (started.inference.state, started.claim) == (InferenceState.QUEUED, None)

    @pytest.mark.parametrize("policy", [REJECT, ENQUEUE, INTERRUPT, ROLLBACK])
    async def test_every_policy_takes_a_seat_where_nobody_is(self, harness: Harness, policy: ConflictPolicy) -> None:
        await harness.session("s")
        command = harness.command("s", user("hi"), conflict_policy=policy)
        assert _claim_of(await harness.store.start(command, admit, Seat("me", "t"))).lease.token == "t"

    async def test_the_seat_of_an_owner_that_is_dead_is_not_taken(self, harness: Harness) -> None:
        await harness.session("s")
        started = await harness.store.start(harness.command("s", user("hi")), admit, Seat("nobody", "t"))
        assert (started.created, started.claim) == (True, None)
        assert started.inference.state is InferenceState.QUEUED
        assert (await harness.claim()).inference.inference_id == started.inference.inference_id

    async def test_taking_a_seat_is_a_sign_of_life(self, harness: Harness) -> None:
        await harness.session("s")
        await harness.store.register("other")
        await harness.store.start(harness.command("s", user("hi")), admit, Seat("me", "t"))
        seen = (await harness.store.heartbeat("other")).beats["me"]
        await harness.session("t")
        await harness.store.start(harness.command("t", user("hi")), admit, Seat("me", "u"))
        assert (await harness.store.heartbeat("other")).beats["me"] > seen

    @pytest.mark.parametrize("guard", [None, key("k")])
    async def test_sent_again_it_has_the_same_claim(self, harness: Harness, guard: object) -> None:
        await harness.session("s")
        command, seat = harness.command("s", user("hi"), idempotency=guard), Seat("me", "t")
        first = await harness.store.start(command, admit, seat)
        again = await harness.store.start(command, admit, seat)
        assert (again.created, again.inference) == (True, first.inference)
        assert _claim_of(again).lease == _claim_of(first).lease
        await harness.finish(_claim_of(first), 0)
        last = await harness.store.start(command, admit, seat)
        assert (last.created, last.claim) == (True, None)
        assert last.inference.state is InferenceState.SUCCEEDED

    async def test_who_repeats_it_with_another_seat_gets_no_claim(self, harness: Harness) -> None:
        await harness.session("s")
        await harness.store.start(harness.command("s", user("hi"), idempotency=key("k")), admit, Seat("me", "t"))
        repeated = harness.command("s", user("hi"), idempotency=key("k"))
        started = await harness.store.start(repeated, admit, Seat("me", "u"))
        assert (started.created, started.claim) == (False, None)
        assert await harness.store.claim("me", ["u"]) == ()

    async def test_a_claim_tells_what_became_of_a_seat(self, harness: Harness) -> None:
        await harness.session("s")
        started = await harness.store.start(harness.command("s", user("hi")), admit, Seat("me", "t"))
        [claim] = await harness.store.claim("me", ["t"], only_lost=True)
        assert (claim.lease, claim.inference) == (_claim_of(started).lease, started.inference)
        await harness.session("u")
        await harness.start("u")
        [other] = await harness.store.claim("me", ["t2"])  # a seat that nobody took
        assert other.inference.session_id == "u"

    async def test_a_seat_of_one_that_is_refused_is_not_taken(self, harness: Harness) -> None:
        with pytest.raises(EmptyTurnError):
            await harness.store.start(harness.command(NewSession("s"), user("hi")), _refuse, Seat("me", "t"))
        assert await harness.store.claim("me", ["t"], only_lost=True) == ()
        assert harness.commits == []

    async def test_at_most_one_of_many_takes_a_seat(self, harness: Harness) -> None:
        await harness.session("s")
        commands = [harness.command("s", user("hi"), conflict_policy=ENQUEUE) for _ in range(5)]
        starts = (harness.store.start(each, admit, Seat("me", f"t{n}")) for n, each in enumerate(commands))
        started = [each for each in await gather(*starts) if isinstance(each, Started)]
        assert [each.claim is not None for each in started].count(True) == 1
        assert sorted(each.inference.queue_position or 0 for each in started) == [0, 1, 2, 3, 4]

    async def test_a_deadline_counts_from_the_start(self, harness: Harness) -> None:
        await harness.session("s")
        command = harness.command("s", user("hi"), timeout=timedelta(seconds=5))
        claim = _claim_of(await harness.store.start(command, admit, Seat("me", "t")))
        assert claim.inference.deadline_time == harness.now + timedelta(seconds=5)
        await harness.store.sweep(harness.now + timedelta(seconds=60))
        [lost] = await harness.claims()
        assert (lost.lease.inference_id, lost.is_lost) == (claim.lease.inference_id, True)

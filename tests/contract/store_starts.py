"""What every store promises of starting inferences."""

from dataclasses import replace
from datetime import timedelta

import pytest

from contract.store_harness import ADMISSION, Harness, admit, gather, key, user
from turnwire_server.domain.errors import (
    EmptyTurnError,
    IdempotencyKeyReusedError,
    SessionAlreadyExistsError,
    SessionBusyError,
    SessionNotFoundError,
    TurnNotFoundError,
)
from turnwire_server.domain.event import InferenceQueued
from turnwire_server.domain.inference import ConflictPolicy, InferenceState, Overrides
from turnwire_server.domain.session import NewSession
from turnwire_server.stores.base import Admission, SessionState, StartCommand, Started

REJECT, ENQUEUE, INTERRUPT, ROLLBACK = ConflictPolicy


class StartPromises:
    """Accepting inferences."""

    async def test_a_start_is_queued_and_told(self, harness: Harness) -> None:
        await harness.session("s")
        command = StartCommand("local", "s", (user("hi"),), timeout=timedelta(seconds=30), attempts_max=3)
        started = await harness.store.start(command, admit)
        inference = started.inference
        assert started.created
        assert (inference.session_id, inference.state) == ("s", InferenceState.QUEUED)
        assert (inference.profile, inference.config) == (ADMISSION.profile, ADMISSION.config)
        assert (inference.attempts_max, inference.attempt, inference.queue_position) == (3, 0, 1)
        assert inference.deadline_time == harness.now + timedelta(seconds=30)
        assert (inference.first_sequence, inference.last_sequence) == (1, 1)
        assert (inference.start_time, inference.turn_index) == (None, None)
        assert await harness.payloads("s") == [InferenceQueued(1)]
        assert await harness.store.get_inference("local", inference.inference_id) == inference
        assert (await harness.chunks("s"))[0].state is InferenceState.QUEUED

    async def test_a_start_can_create_its_session(self, harness: Harness) -> None:
        command = StartCommand("local", NewSession(display_name="new"), (user("hi"),))
        inference = (await harness.store.start(command, admit)).inference
        session = await harness.store.get_session("local", inference.session_id)
        assert (session.display_name, session.queued_count) == ("new", 1)

    async def test_a_refused_start_leaves_nothing(self, harness: Harness) -> None:
        def refuse(_: StartCommand, state: SessionState) -> Admission:
            raise EmptyTurnError(session_id=state.session.session_id)

        command = StartCommand("local", NewSession("s"), idempotency=key("k"))
        with pytest.raises(EmptyTurnError):
            await harness.store.start(command, refuse)
        with pytest.raises(SessionNotFoundError):
            await harness.store.get_session("local", "s")
        assert (await harness.store.start(command, admit)).created

    async def test_a_start_that_cannot_be_encoded_changes_nothing(self, harness: Harness) -> None:
        await harness.session("s")
        running = await harness.running("s")
        broken = {"app.value@v1": "\ud800"}
        command = StartCommand("local", "s", idempotency=key("k"), conflict_policy=INTERRUPT)
        for refused in (
            replace(command, input=(user("fine"), user("\ud800"))),
            replace(command, data=broken),
            replace(command, metadata=broken),
            replace(command, overrides=Overrides(engine_options="\ud800")),
            replace(command, target=NewSession("t", display_name="\ud800")),
        ):
            with pytest.raises(UnicodeEncodeError):
                await harness.store.start(refused, admit)
        assert (await harness.store.list_inferences("local", "s", (), 9, None)).items == (running.inference,)
        assert len(await harness.events("s")) == 3
        with pytest.raises(SessionNotFoundError):
            await harness.store.get_session("local", "t")
        assert (await harness.store.start(command, admit)).created

    async def test_a_start_for_a_taken_session_id_is_refused(self, harness: Harness) -> None:
        await harness.session("s")
        with pytest.raises(SessionAlreadyExistsError):
            await harness.store.start(StartCommand("local", NewSession("s")), admit)

    async def test_decide_sees_the_line_and_the_parent(self, harness: Harness) -> None:
        await harness.session("s")
        seen: list[SessionState] = []

        def look(_: StartCommand, state: SessionState) -> Admission:
            seen.append(state)
            return ADMISSION

        command = StartCommand("local", "s", (user("a"),))
        first = (await harness.store.start(command, look)).inference
        claim = await harness.claim()
        second = (await harness.store.start(command, look)).inference
        await harness.finish(claim, 0, user("b"))
        third = (await harness.store.start(command, look)).inference
        assert [state.session.queued_count for state in seen] == [0, 0, 1]
        assert [[each.inference_id for each in state.unfinished] for state in seen] == [
            [],
            [first.inference_id],
            [second.inference_id],
        ]
        assert [[each.is_active for each in state.unfinished] for state in seen] == [[], [True], [False]]
        assert third.queue_position == 2
        assert seen[0].parent is None
        assert seen[2].parent is not None
        assert (seen[2].parent.index, seen[2].parent.block_count, seen[2].parent.blocks) == (0, 2, ())

    async def test_an_unknown_parent_is_refused(self, harness: Harness) -> None:
        await harness.session("s")
        with pytest.raises(TurnNotFoundError) as caught:
            await harness.start("s", parent=0)
        assert caught.value.metadata == {"session_id": "s", "index": "0"}

    async def test_one_of_many_starts_at_once_wins(self, harness: Harness) -> None:
        await harness.session("s")
        outcomes = await gather(*(harness.start("s", policy=REJECT) for _ in range(20)))
        refused = [outcome for outcome in outcomes if isinstance(outcome, SessionBusyError)]
        [winner] = [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]
        assert len(refused) == 19
        assert {error.metadata["inference_id"] for error in refused} == {winner.inference_id}

    async def test_at_most_one_inference_of_a_session_is_active(self, harness: Harness) -> None:
        await harness.session("s")
        await gather(*(harness.start("s") for _ in range(20)))
        for _ in range(20):
            pages = await gather(*(harness.store.claim("me", 5) for _ in range(5)))
            claims = [claim for page in pages if not isinstance(page, BaseException) for claim in page]
            assert len(claims) == 1
            await harness.finish(claims[0], 0)
        assert (await harness.store.get_session("local", "s")).turn_count == 20

    async def test_a_start_is_idempotent_by_key(self, harness: Harness) -> None:
        await harness.session("s")
        command = StartCommand("local", "s", (user("hi"),), idempotency=key("k"))
        started = await gather(*(harness.store.start(command, admit) for _ in range(10)))
        assert sum(each.created for each in started if isinstance(each, Started)) == 1
        assert len({each.inference.inference_id for each in started if isinstance(each, Started)}) == 1
        claim = await harness.claim()
        again = await harness.store.start(command, admit)  # policy REJECT: the key comes before it
        assert not again.created
        assert again.inference == claim.inference
        ended = await harness.finish(claim, 0)
        assert (await harness.store.start(command, admit)).inference == ended
        assert len((await harness.store.list_inferences("local", "s", (), 10, None)).items) == 1

    async def test_a_key_is_bound_to_its_content_and_rpc(self, harness: Harness) -> None:
        await harness.session("s")
        await harness.start("s", idempotency=key("k"))
        with pytest.raises(IdempotencyKeyReusedError) as caught:
            await harness.start("s", idempotency=key("k", b"other"))
        assert caught.value.metadata == {"rpc": "StartInference"}
        await harness.start("s", idempotency=key("l", b"other"))

    async def test_a_key_outlives_its_session_for_a_day(self, harness: Harness) -> None:
        await harness.session("s")
        await harness.start("s", idempotency=key("k"))
        harness.now += timedelta(days=30)
        await harness.store.delete_session("local", "s", None, force=True)
        await harness.store.expire(harness.now)
        await harness.session("s")
        harness.now += timedelta(hours=24)
        await harness.store.expire(harness.now)
        with pytest.raises(SessionNotFoundError) as caught:
            await harness.start("s", idempotency=key("k"))
        assert caught.value.metadata == {"session_id": "s"}
        with pytest.raises(IdempotencyKeyReusedError):
            await harness.start("s", idempotency=key("k", b"other"))
        harness.now += timedelta(seconds=1)
        await harness.store.expire(harness.now)
        await harness.start("s", idempotency=key("k", b"other"))

    async def test_a_key_lives_as_long_as_its_session(self, harness: Harness) -> None:
        await harness.session("s")
        first = await harness.start("s", idempotency=key("k"))
        harness.now += timedelta(days=365)
        await harness.store.expire(harness.now)
        assert await harness.start("s", idempotency=key("k")) == first

    async def test_a_refused_start_does_not_take_its_key(self, harness: Harness) -> None:
        await harness.session("s")
        first = await harness.start("s")
        with pytest.raises(SessionBusyError):
            await harness.start("s", policy=REJECT, idempotency=key("k"))
        await harness.store.request_cancel("local", first.inference_id, "", is_session=False)
        await harness.start("s", policy=REJECT, idempotency=key("k", b"other"))

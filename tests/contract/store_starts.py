"""What every store promises of starting inferences."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from contract.store_harness import ADMISSION, LEASELESS, Harness, admit, gather, key, user
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
from turnwire_server.stores.start import Admission, SessionState, StartCommand, Started

REJECT, ENQUEUE, INTERRUPT, ROLLBACK = ConflictPolicy
_BROKEN = {"app.value@v1": "\ud800"}


def _refuse(_: StartCommand, state: SessionState) -> Admission:
    raise EmptyTurnError(session_id=state.session.session_id)


class StartPromises:
    """Accepting inferences."""

    async def test_a_start_is_queued_and_told(self, harness: Harness) -> None:
        await harness.session("s")
        command = harness.command("s", user("hi"), timeout=timedelta(seconds=30), attempts_max=3)
        started = await harness.store.start(command, admit)
        inference = started.inference
        assert started.created
        assert (inference.session_id, inference.inference_id) == ("s", command.inference_id)
        assert (inference.profile, inference.config) == (ADMISSION.profile, ADMISSION.config)
        assert (inference.attempts_max, inference.attempt, inference.queue_position) == (3, 0, 1)
        assert (inference.state, inference.create_time) == (InferenceState.QUEUED, harness.now)
        assert inference.deadline_time == harness.now + timedelta(seconds=30)
        assert (inference.first_sequence, inference.last_sequence) == (1, 1)
        assert (inference.start_time, inference.turn_index) == (None, None)
        assert await harness.payloads("s") == [InferenceQueued(1)]
        assert await harness.get(inference) == inference
        assert (await harness.chunks("s"))[0].state is InferenceState.QUEUED

    async def test_a_start_can_create_its_session(self, harness: Harness) -> None:
        command = harness.command(NewSession("s", display_name="new"), user("hi"))
        inference = (await harness.store.start(command, admit)).inference
        session = await harness.store.get_session("local", "s")
        assert (inference.session_id, session.display_name, session.queued_count) == ("s", "new", 1)
        other = harness.command(NewSession("t"), user("hi"))
        await harness.store.start(other, admit)
        assert (await harness.store.get_session("local", "t")).log != session.log

    async def test_a_refused_start_leaves_nothing(self, harness: Harness) -> None:
        command = harness.command(NewSession("s"), user("hi"), idempotency=key("k"))
        with pytest.raises(EmptyTurnError):
            await harness.store.start(command, _refuse)
        with pytest.raises(SessionNotFoundError):
            await harness.store.get_session("local", "s")
        assert (await harness.store.start(command, admit)).created

    @pytest.mark.parametrize("then", [*LEASELESS, None])
    async def test_a_refused_start_displaces_nothing(self, harness: Harness, then: InferenceState | None) -> None:
        await harness.session("s")
        await (harness.leaseless("s", then) if then else harness.running("s"))
        before = await harness.everything()
        with pytest.raises(EmptyTurnError):
            await harness.store.start(harness.command("s", conflict_policy=INTERRUPT), _refuse)
        assert await harness.everything() == before

    @pytest.mark.parametrize(
        "spoil",
        [
            lambda command: replace(command, input=(user("fine"), user("\ud800"))),
            lambda command: replace(command, data=_BROKEN),
            lambda command: replace(command, metadata=_BROKEN),
            lambda command: replace(command, overrides=Overrides(engine_options="\ud800")),
            lambda command: replace(command, target=NewSession("t", display_name="\ud800")),
        ],
        ids=["input", "data", "metadata", "overrides", "session"],
    )
    @pytest.mark.parametrize("then", [*LEASELESS, None])
    async def test_a_start_that_cannot_be_encoded_changes_nothing(
        self, harness: Harness, spoil: Callable[[StartCommand], StartCommand], then: InferenceState | None
    ) -> None:
        await harness.session("s")
        await (harness.leaseless("s", then) if then else harness.running("s"))
        command = harness.command("s", idempotency=key("k"), conflict_policy=INTERRUPT)
        before = await harness.everything()
        with pytest.raises(UnicodeEncodeError):
            await harness.store.start(spoil(command), admit)
        assert await harness.everything() == before
        assert (await harness.store.start(command, admit)).created

    async def test_an_admission_that_cannot_be_encoded_changes_nothing(self, harness: Harness) -> None:
        await harness.session("s")
        await harness.waiting("s")
        command = harness.command("s", conflict_policy=INTERRUPT)
        before = await harness.everything()
        with pytest.raises(UnicodeEncodeError):
            await harness.store.start(command, lambda *_: replace(ADMISSION, profile="\ud800"))
        assert await harness.everything() == before

    async def test_a_start_for_a_taken_session_id_is_refused(self, harness: Harness) -> None:
        await harness.session("s")
        before = await harness.everything()
        with pytest.raises(SessionAlreadyExistsError):
            await harness.store.start(harness.command(NewSession("s"), user("hi")), admit)
        assert await harness.everything() == before

    async def test_a_start_in_no_session_is_refused(self, harness: Harness) -> None:
        with pytest.raises(SessionNotFoundError) as caught:  # before anybody decides
            await harness.store.start(harness.command("s", user("hi")), _refuse)
        assert caught.value.metadata == {"session_id": "s"}

    async def test_decide_sees_the_line_and_the_parent(self, harness: Harness) -> None:
        await harness.session("s")
        seen: list[SessionState] = []

        def look(_: StartCommand, state: SessionState) -> Admission:
            seen.append(state)
            return ADMISSION

        first = (await harness.store.start(harness.command("s", user("a")), look)).inference
        claim = await harness.claim()
        second = (await harness.store.start(harness.command("s", user("a")), look)).inference
        await harness.finish(claim, 0, user("b"))
        third = (await harness.store.start(harness.command("s", user("a")), look)).inference
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

    @pytest.mark.parametrize("then", LEASELESS)
    async def test_decide_sees_what_is_active_without_a_lease(self, harness: Harness, then: InferenceState) -> None:
        await harness.session("s")
        active = await harness.leaseless("s", then)
        queued = await harness.start("s")
        seen: list[SessionState] = []

        def look(_: StartCommand, state: SessionState) -> Admission:
            seen.append(state)
            return ADMISSION

        await harness.store.start(harness.command("s", conflict_policy=INTERRUPT), look)
        [state] = seen
        assert [(each.inference_id, each.state, each.is_active) for each in state.unfinished] == [
            (active.inference.inference_id, then, True),
            (queued.inference_id, InferenceState.QUEUED, False),
        ]

    async def test_decide_sees_the_parent_that_is_named(self, harness: Harness) -> None:
        await harness.session("s")
        for said in ("a", "b", "c"):
            await harness.turn("s", said)
        seen: list[SessionState] = []

        def look(_: StartCommand, state: SessionState) -> Admission:
            seen.append(state)
            return ADMISSION

        for parent in (0, 2, None):
            await harness.store.start(harness.command("s", user("d"), parent=parent), look)
        assert [state.parent.index for state in seen if state.parent] == [0, 2, 2]

    async def test_an_unknown_parent_is_refused(self, harness: Harness) -> None:
        await harness.session("s")
        with pytest.raises(TurnNotFoundError) as caught:
            await harness.start("s", parent=0)
        assert caught.value.metadata == {"session_id": "s", "index": "0"}
        assert await harness.events("s") == []

    async def test_one_of_many_starts_at_once_wins(self, harness: Harness) -> None:
        await harness.session("s")
        results = await gather(*(harness.start("s", policy=REJECT) for _ in range(20)))
        refused = [result for result in results if isinstance(result, SessionBusyError)]
        [winner] = [result for result in results if not isinstance(result, BaseException)]
        assert len(refused) == 19
        assert {error.metadata["inference_id"] for error in refused} == {winner.inference_id}

    async def test_at_most_one_inference_of_a_session_is_active(self, harness: Harness) -> None:
        await harness.session("s")
        await gather(*(harness.start("s") for _ in range(20)))
        for _ in range(20):
            pages = await gather(*(harness.claims(limit=5) for _ in range(5)))
            claims = [claim for page in pages if not isinstance(page, BaseException) for claim in page]
            assert len(claims) == 1
            await harness.finish(claims[0], 0)
        assert (await harness.store.get_session("local", "s")).turn_count == 20

    async def test_a_start_is_idempotent_by_key(self, harness: Harness) -> None:
        await harness.session("s")

        async def start() -> Started:  # each time with another inference_id
            return await harness.store.start(harness.command("s", user("hi"), idempotency=key("k")), admit)

        started = [each for each in await gather(*(start() for _ in range(10))) if isinstance(each, Started)]
        assert sum(each.created for each in started) == 1
        assert len({each.inference.inference_id for each in started}) == 1
        claim = await harness.claim()
        again = await start()  # policy REJECT: the key comes before it
        assert not again.created
        assert again.inference == claim.inference
        ended = await harness.finish(claim, 0)
        assert (await start()).inference == ended
        assert len((await harness.store.list_inferences("local", "s", (), 10, None)).items) == 1

    async def test_a_key_is_bound_to_its_content_and_rpc(self, harness: Harness) -> None:
        await harness.session("s")
        await harness.start("s", idempotency=key("k"))
        with pytest.raises(IdempotencyKeyReusedError) as caught:
            await harness.start("s", idempotency=key("k", b"other"))
        assert caught.value.metadata == {"rpc": "StartInference"}
        await harness.start("s", idempotency=key("l", b"other"))

    async def test_the_key_comes_before_existence(self, harness: Harness) -> None:
        await harness.session("s")
        first = await harness.start("s", idempotency=key("k"))
        assert await harness.start("nowhere", idempotency=key("k")) == first
        with pytest.raises(IdempotencyKeyReusedError):
            await harness.start("nowhere", idempotency=key("k", b"other"))

    async def test_a_refused_start_does_not_take_its_key(self, harness: Harness) -> None:
        await harness.session("s")
        first = await harness.start("s")
        with pytest.raises(SessionBusyError):
            await harness.start("s", policy=REJECT, idempotency=key("k"))
        await harness.cancel(first)
        await harness.start("s", policy=REJECT, idempotency=key("k", b"other"))

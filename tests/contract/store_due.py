"""What every store promises of finding and listing what waits for its client."""

from datetime import timedelta
from functools import partial

import pytest

from contract.store_harness import FOREVER, WAITS, Harness, answer, llm
from contract.store_pages import walk
from turnwire_server.domain.event import Cancelled
from turnwire_server.domain.inference import ConflictPolicy, InferenceState
from turnwire_server.stores.base import Amendment, Due, Waiting
from turnwire_server.stores.lease import Claim, Step

SECOND = timedelta(seconds=1)
TOOLS, PAUSED = WAITS


class DuePromises:
    """Finding what has waited long enough."""

    async def test_what_has_waited_long_enough_is_found_the_longest_due_first(self, harness: Harness) -> None:
        waiting: dict[str, str] = {}
        for session_id, seconds in (("a", 3), ("b", 1), ("c", 4), ("d", 2), ("e", 1)):
            await harness.session(session_id)
            wake_time = harness.now + seconds * SECOND
            claim = await harness.leaseless(session_id, WAITS[seconds % 2], wake_time=wake_time)
            waiting[claim.inference.inference_id] = session_id
        expected = {0: "", 1: "be", 2: "bed", 3: "beda", 4: "bedac", 5: "bedac"}
        for seconds, sessions in expected.items():
            assert "".join(waiting[each] for each in await harness.due(seconds * SECOND)) == sessions
        almost = harness.now + SECOND - timedelta(microseconds=1)
        assert await harness.store.find_due(almost, 9) == ()
        first = await harness.store.find_due(harness.now + 9 * SECOND, 3)
        assert "".join(waiting[due.inference_id] for due in first) == "bed"

    async def test_what_is_found_says_whose_it_is(self, harness: Harness) -> None:
        expected: list[Due] = []
        for principal in ("local", "other"):
            await harness.session("s", principal)
            claim = await harness.waiting("s", principal=principal, wake_time=harness.now)
            expected.append(Due(principal, claim.inference.inference_id))
        assert await harness.store.find_due(harness.now, 9) == tuple(expected)

    async def test_what_waits_without_a_time_is_never_due(self, harness: Harness) -> None:
        await harness.session("s")
        await harness.waiting("s")
        assert await harness.due(FOREVER) == []

    async def test_what_runs_is_not_due(self, harness: Harness) -> None:
        await harness.session("s")
        claim = await harness.running("s")
        await harness.store.commit_step(claim.lease, 0, Step(1, wake_time=harness.now))
        assert await harness.due() == []
        waits = Step(2, events=tuple(harness.deltas(claim, "x")), then=PAUSED)
        await harness.store.commit_step(claim.lease, 0, waits)
        assert await harness.due(FOREVER) == []

    @pytest.mark.parametrize("how", ["released", "ended", "cancelled", "displaced", "deadline", "deleted"])
    @pytest.mark.parametrize("then", WAITS)
    async def test_what_waits_no_more_is_not_due(self, harness: Harness, then: InferenceState, how: str) -> None:
        await harness.session("s")
        claim = await harness.leaseless("s", then, wake_time=harness.now, timeout=SECOND)
        assert await harness.due() == [claim.inference.inference_id]
        harness.now += SECOND
        await _move(harness, claim, how)
        assert await harness.due(FOREVER) == []

    async def test_a_part_of_an_answer_leaves_the_time(self, harness: Harness) -> None:
        await harness.session("s")
        claim = await harness.waiting("s", wake_time=harness.now + SECOND)
        events = tuple(harness.deltas(claim, "x"))
        await harness.amend(claim, lambda _: Amendment(b"part", events, is_released=False))
        assert await harness.due() == []
        assert await harness.due(SECOND) == [claim.inference.inference_id]

    async def test_what_waits_again_has_another_time(self, harness: Harness) -> None:
        await harness.session("s")
        claim = await harness.waiting("s", wake_time=harness.now)
        await harness.amend(claim)
        following = await harness.claim()
        assert await harness.due(FOREVER) == []
        events = tuple(harness.deltas(following, "x"))
        step = Step(2, events=events, then=PAUSED, wake_time=harness.now + SECOND)
        for _ in range(2):
            await harness.store.commit_step(following.lease, 1, step)
        assert await harness.due() == []
        assert await harness.due(SECOND) == [claim.inference.inference_id]
        await harness.amend(claim)
        await harness.store.commit_step(following.lease, 1, step)  # sent again, after it was released
        assert await harness.due(FOREVER) == []

    @pytest.mark.parametrize("then", WAITS)
    async def test_what_ends_instead_of_waiting_is_not_due(self, harness: Harness, then: InferenceState) -> None:
        await harness.session("s")
        claim = await harness.running("s")
        await harness.cancel(claim.inference)
        step = Step(1, events=tuple(harness.deltas(claim, "x")), then=then, wake_time=harness.now)
        assert (await harness.store.commit_step(claim.lease, 0, step)).state is InferenceState.CANCELLED
        assert await harness.due(FOREVER) == []


class WaitingListPromises:
    """Listing what waits."""

    async def test_what_waits_is_listed_as_an_answer_sees_it(self, harness: Harness) -> None:
        await harness.session("s")
        claim = await harness.waiting("s", llm("a"))
        for session_id in ("s", ""):
            page = await harness.store.list_waiting("local", session_id, TOOLS, 9, None)
            assert page.items == (Waiting(await harness.get(claim.inference), b"waits"),)
        await harness.amend(claim, answer(is_released=False))
        [waiting] = (await harness.store.list_waiting("local", "s", TOOLS, 9, None)).items
        assert waiting.checkpoint == b"answered"
        assert waiting == await harness.look(claim)
        await harness.amend(claim)
        assert (await harness.store.list_waiting("local", "s", TOOLS, 9, None)).items == ()

    async def test_what_waits_in_one_state_is_listed_the_oldest_first(self, harness: Harness) -> None:
        names = "abcdefg"
        for session_id in names:
            await harness.session(session_id)
        for session_id in reversed(names):
            await harness.start(session_id)
        claims = sorted(await harness.claims(), key=lambda claim: claim.inference.session_id)
        for number, claim in enumerate(claims):  # the order in which they begin to wait is another one
            events = tuple(harness.deltas(claim, "waits"))
            await harness.store.commit_step(claim.lease, 0, Step(1, events=events, then=WAITS[number % 2]))
        await harness.session("other", principal="other")
        await harness.waiting("other", principal="other")
        for state, expected in ((TOOLS, "geca"), (PAUSED, "fdb")):
            for limit in (1, 2, 3, 4):
                pages = await walk(partial(harness.store.list_waiting, "local", "", state, limit))
                assert [len(page) for page in pages[:-1]] == [limit] * (len(pages) - 1)
                listed = [waiting.inference.session_id for page in pages for waiting in page]
                assert "".join(listed) == expected
        for session_id in names:
            states = [(await harness.store.list_waiting("local", session_id, state, 9, None)).items for state in WAITS]
            assert sorted(map(len, states)) == [0, 1]
        assert len((await harness.store.list_waiting("other", "", TOOLS, 9, None)).items) == 1
        assert (await harness.store.list_waiting("nobody", "", TOOLS, 9, None)).items == ()

    async def test_a_cursor_leads_behind_what_it_was_given_for(self, harness: Harness) -> None:
        for session_id in "abc":
            await harness.session(session_id)
        claims = [await harness.waiting(session_id) for session_id in "abc"]
        page = await harness.store.list_waiting("local", "", TOOLS, 1, None)
        await harness.amend(claims[0])
        await harness.amend(claims[1])
        rest = await harness.store.list_waiting("local", "", TOOLS, 9, page.next)
        assert [waiting.inference.session_id for waiting in rest.items] == ["c"]
        assert (await harness.store.list_waiting("local", "a", TOOLS, 9, page.next)).items == ()

    async def test_a_page_has_a_mebibyte_or_one_that_waits(self, harness: Harness) -> None:
        for session_id, size in (("a", 2_000_000), ("b", 500_000), ("c", 500_000), ("d", 500_000)):
            await harness.session(session_id)
            claim = await harness.waiting(session_id)
            await harness.amend(claim, answer(b"x" * size, is_released=False))
        pages = await walk(lambda after: harness.store.list_waiting("local", "", TOOLS, 9, after))
        assert [len(page) for page in pages] == [1, 2, 1]


async def _move(harness: Harness, claim: Claim, how: str) -> None:
    match how:
        case "released":
            await harness.amend(claim)
        case "ended":
            await harness.amend(claim, answer(outcome=Cancelled()))
        case "cancelled":
            await harness.cancel(claim.inference)
        case "displaced":
            await harness.start("s", policy=ConflictPolicy.INTERRUPT)
        case "deadline":
            await harness.sweep()
            assert (await harness.get(claim.inference)).state is InferenceState.FAILED
        case _:
            await harness.delete("s", force=True)

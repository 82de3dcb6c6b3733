"""What every store promises of the snapshots of turns."""

from datetime import timedelta
from functools import partial

import pytest

from contract.store_harness import DONE, WAITS, Harness, llm, marks, texts, user
from contract.store_pages import walk
from turnwire_server.domain.errors import InferenceNotFoundError
from turnwire_server.domain.event import Cancelled
from turnwire_server.domain.inference import ConflictPolicy, InferenceState, Overrides
from turnwire_server.domain.turn import SnapshotMark, SnapshotPhase, TurnState
from turnwire_server.stores.base import Amendment
from turnwire_server.stores.lease import Claim, Ending, Step
from turnwire_server.stores.page import PAGE_BYTES_MAX

PRE, POST, TOOLS, FINAL = SnapshotPhase


class SnapshotPromises:
    """Turns as they were between the phases of their inferences."""

    async def test_a_snapshot_has_the_blocks_that_the_turn_had_then(self, harness: Harness) -> None:
        await harness.session("s")
        await harness.turn("s", "q0", "a0")
        claim = await harness.running("s", user("q1"))
        taken = [_mark(harness, PRE, 3)]
        harness.now += timedelta(microseconds=1)
        taken.append(_mark(harness, POST, 5))
        await harness.store.commit_step(claim.lease, 0, Step(1, (llm("a"), llm("b")), marks=tuple(taken)))
        await harness.store.commit_step(claim.lease, 0, Step(2, (llm("c"),)))
        taken.append(_mark(harness, TOOLS, 6, iteration=2))
        open_ = await harness.snapshots(claim.inference)
        assert [snapshot.turn.state for snapshot in open_] == [TurnState.OPEN] * 2
        harness.now += timedelta(microseconds=1)
        await harness.store.finish(claim.lease, 0, Ending(DONE, blocks=(llm("d"),), marks=(taken[-1],)))
        snapshots = await harness.snapshots(claim.inference)
        assert [snapshot.mark for snapshot in snapshots] == [*taken, _mark(harness, FINAL, 7, iteration=2)]
        said = [texts(snapshot.turn) for snapshot in snapshots]
        assert said == [["q1"], ["q1", "a", "b"], ["q1", "a", "b", "c"], ["q1", "a", "b", "c", "d"]]
        assert [snapshot.turn.block_count for snapshot in snapshots] == [3, 5, 6, 7]
        turn = (await harness.full("s", 1)).blocks
        assert snapshots[-1].turn.blocks == turn[2:]

    async def test_all_else_of_a_snapshot_is_as_it_is_now(self, harness: Harness) -> None:
        await harness.session("s")
        claim = await harness.running("s", user("q"), data={"app.of@v1": "1"}, metadata={"app.by@v1": "2"})
        await harness.store.commit_step(claim.lease, 0, Step(1, marks=marks(harness, 1)))
        await harness.store.finish(claim.lease, 0, Ending(DONE, data={"app.of@v1": "3"}))
        snapshot, final = await harness.snapshots(claim.inference)
        assert snapshot.turn == final.turn == await harness.full("s", 0)
        assert snapshot.turn.data == {"app.of@v1": "3"}

    async def test_snapshots_are_of_one_phase_or_of_all(self, harness: Harness) -> None:
        await harness.session("s")
        claim = await harness.running("s", user("q"))
        phases = [PRE, POST, TOOLS, PRE, POST, FINAL]
        for number, phase in enumerate(phases, 1):
            taken = (_mark(harness, phase, number + 1, number),)
            await harness.store.commit_step(claim.lease, 0, Step(number, (llm(f"{number}"),), marks=taken))
        inference_id = claim.inference.inference_id
        wanted: dict[SnapshotPhase | None, list[int]] = {
            None: [1, 2, 3, 4, 5, 6],
            PRE: [1, 4],
            POST: [2, 5],
            TOOLS: [3],
            FINAL: [6],
        }
        for wished, iterations in wanted.items():
            for limit in (1, 2, 5, 6):
                pages = await walk(partial(harness.store.list_turn_snapshots, "local", inference_id, wished, limit))
                assert [len(page) for page in pages[:-1]] == [limit] * (len(pages) - 1)
                assert len(pages) == -(-len(iterations) // limit)
                assert [snapshot.mark.iteration for page in pages for snapshot in page] == iterations

    async def test_a_page_of_snapshots_has_a_mebibyte_or_one_snapshot(self, harness: Harness) -> None:
        await harness.session("s")
        claim = await harness.running("s", user("q"))
        sizes = (1000, 400_000, 400_000, 400_000, 2 * PAGE_BYTES_MAX)
        for number, size in enumerate(sizes, 1):
            said, taken = llm("x" * size), (_mark(harness, POST, number + 1, number),)
            await harness.store.commit_step(claim.lease, 0, Step(number, (said,), marks=taken))
        pages = await walk(
            lambda after: harness.store.list_turn_snapshots("local", claim.inference.inference_id, None, 9, after)
        )
        shown = [[(len(each.turn.blocks), each.turn.block_count) for each in page] for page in pages]
        assert shown == [[(2, 2), (3, 3)], [(4, 4)], [(4, 5)], [(4, 6)]]

    async def test_a_block_that_is_too_large_for_any_page_is_shown(self, harness: Harness) -> None:
        await harness.session("s")
        claim = await harness.running("s", user("x" * (2 * PAGE_BYTES_MAX)))
        await harness.store.commit_step(claim.lease, 0, Step(1, (llm("a"),), marks=marks(harness, 1, 2)))
        pages = await walk(
            lambda after: harness.store.list_turn_snapshots("local", claim.inference.inference_id, None, 9, after)
        )
        assert [[len(each.turn.blocks) for each in page] for page in pages] == [[1], [1]]

    async def test_what_has_no_turn_or_no_marks_has_no_snapshots(self, harness: Harness) -> None:
        await harness.session("s")
        claim = await harness.running("s")
        queued = await harness.start("s")
        ended = await harness.cancel(await harness.start("s"))
        for inference in (claim.inference, queued, ended):
            page = await harness.store.list_turn_snapshots("local", inference.inference_id, None, 9, None)
            assert (page.items, page.next) == ((), None)
        await harness.store.commit_step(claim.lease, 0, Step(1))
        assert await harness.snapshots(claim.inference) == ()

    async def test_a_turn_that_has_no_blocks_of_its_own(self, harness: Harness) -> None:
        await harness.session("s")
        await harness.turn("s", "q", "a")
        await harness.start("s", parent=0)
        claim = await harness.claim()
        own = (await harness.full("s", 1)).given_block_count
        await harness.store.commit_step(claim.lease, 0, Step(1, (llm("b"),), marks=marks(harness, 2, own, own + 1)))
        assert [texts(each.turn) for each in await harness.snapshots(claim.inference)] == [[], ["hi"], ["hi", "b"]]

    @pytest.mark.parametrize("then", [InferenceState.RUNNING, *WAITS])
    async def test_marks_are_kept_once(self, harness: Harness, then: InferenceState) -> None:
        await harness.session("s")
        claim = await harness.running("s", user("q"))
        events = tuple(harness.deltas(claim, "x"))
        step = Step(1, (llm("a"),), events=events, then=then, marks=marks(harness, 1, 2))
        for _ in range(3):
            await harness.store.commit_step(claim.lease, 0, step)
        assert len(await harness.snapshots(claim.inference)) == 2

    async def test_marks_stay_when_the_attempt_is_lost(self, harness: Harness) -> None:
        await harness.session("s")
        claim = await harness.running("s", user("q"))
        await harness.store.commit_step(claim.lease, 0, Step(1, (llm("a"),), marks=marks(harness, 1, 2)))
        await harness.lose(claim)
        lost = await harness.claim()
        await harness.store.hand_back(lost.lease, 0, is_loss=True)
        following = await harness.claim()
        ending = Ending(Cancelled(), blocks=(llm("b"),), marks=(_mark(harness, TOOLS, 3),))
        for _ in range(2):
            await harness.store.finish(following.lease, 0, ending)
        snapshots = await harness.snapshots(claim.inference)
        assert [snapshot.mark.phase for snapshot in snapshots] == [PRE, POST, TOOLS, FINAL]

    @pytest.mark.parametrize(
        "how", ["finished", "answered", "cancelled", "in place of a wait", "handed back", "displaced", "too late"]
    )
    async def test_the_last_snapshot_is_of_the_end_however_that_came(self, harness: Harness, how: str) -> None:
        await harness.session("s")
        await harness.turn("s", "q0", "a0")
        claim = await harness.running("s", user("q1"), timeout=timedelta(seconds=1))
        await harness.store.commit_step(claim.lease, 0, Step(1, (llm("a"),), marks=(_mark(harness, PRE, 3, 7),)))
        harness.now += timedelta(seconds=1)
        for _ in range(2):
            await _end(harness, claim, how)
        assert (await harness.get(claim.inference)).state.is_terminal
        *_, last = await harness.snapshots(claim.inference)
        turn = await harness.full("s", 1)
        assert last.mark == _mark(harness, FINAL, turn.block_count, 7)
        assert last.turn.blocks == turn.blocks[2:]
        assert [each.mark.phase for each in await harness.snapshots(claim.inference)].count(FINAL) == 1

    async def test_marks_may_come_with_the_end(self, harness: Harness) -> None:
        await harness.session("s")
        claim = await harness.running("s", user("q"))
        ending = Ending(DONE, blocks=(llm("a"),), marks=(_mark(harness, POST, 2, 3),))
        for _ in range(2):
            await harness.store.finish(claim.lease, 0, ending)
        marks = [each.mark for each in await harness.snapshots(claim.inference)]
        assert marks == [_mark(harness, POST, 2, 3), _mark(harness, FINAL, 2, 3)]

    async def test_the_end_of_a_turn_without_marks_is_not_marked(self, harness: Harness) -> None:
        await harness.session("s")
        inference = await harness.turn("s", "q", "a", overrides=Overrides(record_snapshots=True))
        assert await harness.snapshots(inference) == ()

    async def test_snapshots_are_found_by_whom_they_belong_to(self, harness: Harness) -> None:
        await harness.session("s")
        claim = await harness.running("s")
        await harness.store.finish(claim.lease, 0, Ending(DONE, marks=marks(harness, 1)))
        for principal, inference_id in (("local", "nothing"), ("other", claim.inference.inference_id)):
            with pytest.raises(InferenceNotFoundError):
                await harness.store.list_turn_snapshots(principal, inference_id, None, 9, None)
        await harness.delete("s")
        with pytest.raises(InferenceNotFoundError):
            await harness.snapshots(claim.inference)


async def _end(harness: Harness, claim: Claim, how: str) -> None:
    """End an inference that has one step, at position 0; do it again, as what is sent again."""
    lease = claim.lease
    waits = Step(2, (llm("b"),), events=tuple(harness.deltas(claim, "b")), then=WAITS[0])
    match how:
        case "finished":
            await harness.store.finish(lease, 0, Ending(DONE, blocks=(llm("b"),)))
            return
        case "handed back":
            await harness.cancel(claim.inference)
            await harness.store.hand_back(lease, 0, is_loss=False)
            return
        case "in place of a wait":
            await harness.cancel(claim.inference)
    await harness.store.commit_step(lease, 0, waits)
    match how:
        case "answered":
            amendment = Amendment(b"", blocks=(llm("c"),), outcome=Cancelled())
            await harness.store.amend("local", claim.inference.inference_id, "token", lambda _: amendment)
        case "cancelled":
            await harness.cancel(claim.inference)
        case "displaced":
            await harness.start("s", policy=ConflictPolicy.INTERRUPT)
        case "too late":
            await harness.sweep()


def _mark(harness: Harness, phase: SnapshotPhase, block_count: int, iteration: int = 1) -> SnapshotMark:
    return SnapshotMark(phase, iteration, block_count, harness.now)

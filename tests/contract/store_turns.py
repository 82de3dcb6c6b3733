"""What every store promises of turns and blocks."""

import json
from itertools import pairwise

import pytest

from contract.store_harness import DONE, Harness, admit, llm, marks, texts, user
from turnwire_server.domain.errors import TurnNotFoundError
from turnwire_server.domain.event import Cancelled
from turnwire_server.domain.tool import ToolCall, ToolUse
from turnwire_server.domain.turn import Block, BlockStatus, LlmText, Other, Reasoning, System, TurnState, TurnView
from turnwire_server.stores.lease import Ending, Step
from turnwire_server.stores.page import PAGE_BYTES_MAX

MODE_B = {"app.mode@v1": '"b"', "app.keep@v1": "1"}
BASIC, DELTA, FULL = TurnView.BASIC, TurnView.DELTA, TurnView.FULL


class TurnPromises:
    """Turns are their parent plus what changed."""

    async def test_an_open_turn_shows_its_input(self, harness: Harness) -> None:
        await harness.session("s")
        claim = await harness.running("s", user("a"))
        turn = await harness.full("s", 0)
        assert (turn.session_id, turn.inference_id, turn.index) == ("s", claim.inference.inference_id, 0)
        assert (turn.state, turn.create_time, turn.close_time, turn.parent) == (TurnState.OPEN, harness.now, None, None)
        assert texts(turn) == ["a"]
        assert turn.block_count == 1
        assert (turn.inherited_block_count, turn.given_block_count) == (0, 1)
        await harness.finish(claim, 0, llm("b"))
        closed = await harness.full("s", 0)
        assert (closed.id, closed.state) == (turn.id, TurnState.CLOSED)
        assert texts(closed) == ["a", "b"]

    async def test_the_input_of_what_waits_belongs_to_no_turn_yet(self, harness: Harness) -> None:
        await harness.session("s")
        await harness.start("s", user("a"))
        with pytest.raises(TurnNotFoundError):
            await harness.full("s", 0)
        with pytest.raises(TurnNotFoundError):
            await harness.full("s", None)

    async def test_a_turn_is_built_on_the_one_before(self, harness: Harness) -> None:
        await harness.session("s")
        for number in range(3):
            await harness.turn("s", f"q{number}", f"a{number}")
        last = await harness.full("s", None)
        assert (last.index, last.parent) == (2, 1)
        assert texts(last) == ["q0", "a0", "q1", "a1", "q2", "a2"]
        assert last.block_count == 6
        assert (last.inherited_block_count, last.given_block_count) == (4, 5)
        before = await harness.full("s", 1)
        assert last.blocks[:4] == before.blocks
        ids = [block.id for block in last.blocks]
        assert len(set(ids)) == 6
        assert "" not in ids

    async def test_the_parent_is_chosen_when_the_inference_first_runs(self, harness: Harness) -> None:
        await harness.session("s")
        first = await harness.running("s", user("a"))
        await harness.start("s", user("b"))
        await harness.finish(first, 0, llm("A"))
        second = await harness.claim()
        assert texts(await harness.full("s", second.inference.turn_index)) == ["a", "A", "b"]

    async def test_regenerating_and_editing_branch(self, harness: Harness) -> None:
        await harness.session("s")
        await harness.turn("s", "q0", "a0")
        await harness.turn("s", "q1", "a1")
        await harness.turn("s", "q1 edited", "a1 edited", parent=0)
        await harness.store.start(harness.command("s", parent=2), admit)
        regenerated = await harness.claim()
        await harness.finish(regenerated, 0, llm("again"))
        assert texts(await harness.full("s", 1)) == ["q0", "a0", "q1", "a1"]
        assert texts(await harness.full("s", 2)) == ["q0", "a0", "q1 edited", "a1 edited"]
        assert texts(await harness.full("s", 3)) == ["q0", "a0", "q1 edited", "a1 edited", "again"]
        assert [(await harness.full("s", index)).parent for index in range(4)] == [None, 0, 0, 2]
        await harness.turn("s", "next", "one")
        assert (await harness.full("s", None)).parent == 3

    async def test_views(self, harness: Harness) -> None:
        await harness.session("s")
        await harness.turn("s", "q0", "a0")
        await harness.turn("s", "q1", "a1")
        for view, expected in ((BASIC, []), (DELTA, ["q1", "a1"]), (FULL, ["q0", "a0", "q1", "a1"])):
            page = await harness.store.get_turn("local", "s", 1, view, 0, 100)
            assert texts(page.turn) == expected
            assert page.turn.block_count == 4
            assert page.next is None

    async def test_pages_of_blocks_join_to_the_whole(self, harness: Harness) -> None:
        await harness.session("s")
        for number in range(5):
            await harness.turn("s", f"q{number}", *(f"a{number}.{part}" for part in range(number)))
        await harness.turn("s", "end")
        for view in (FULL, DELTA):
            for index in range(6):
                whole = (await harness.store.get_turn("local", "s", index, view, 0, 1000)).turn
                for size in (1, 2, 3, 7):
                    seen: list[Block] = []
                    offset: int | None = 0
                    while offset is not None:
                        page = await harness.store.get_turn("local", "s", index, view, offset, size)
                        assert len(page.turn.blocks) <= size
                        seen.extend(page.turn.blocks)
                        offset = page.next
                    assert tuple(seen) == whole.blocks
                assert (await harness.store.get_turn("local", "s", index, view, 99, 5)).turn.blocks == ()

    async def test_an_open_turn_is_paged_as_far_as_it_was_committed(self, harness: Harness) -> None:
        await harness.session("s")
        await harness.turn("s", "q0", "a0")
        claim = await harness.running("s", user("q1"))
        for number, said in enumerate((("a", "b"), (), ("c",)), 1):
            await harness.store.commit_step(claim.lease, 0, Step(number, tuple(map(llm, said))))
        for view, expected in ((FULL, ["q0", "a0", "q1", "a", "b", "c"]), (DELTA, ["q1", "a", "b", "c"])):
            seen: list[str] = []
            offset: int | None = 0
            while offset is not None:
                page = await harness.store.get_turn("local", "s", 1, view, offset, 2)
                seen.extend(texts(page.turn))
                offset = page.next
            assert seen == expected

    async def test_a_page_of_blocks_has_a_mebibyte_or_one_block(self, harness: Harness) -> None:
        await harness.session("s")
        claim = await harness.running("s", user("x" * (2 * PAGE_BYTES_MAX)))
        await harness.finish(claim, 0, *(llm(f"{number}" * 400_000) for number in range(4)))
        sizes: list[int] = []
        offset: int | None = 0
        while offset is not None:
            page = await harness.store.get_turn("local", "s", 0, FULL, offset, 1000)
            sizes.append(len(page.turn.blocks))
            offset = page.next
        assert sizes == [1, 2, 2]

    async def test_turns_are_listed_both_ways(self, harness: Harness) -> None:
        await harness.session("s")
        for number in range(5):
            await harness.turn("s", f"q{number}", f"a{number}")
        for newest_first, expected in ((False, [0, 1, 2, 3, 4]), (True, [4, 3, 2, 1, 0])):
            seen: list[int] = []
            cursor: int | None = None
            while True:
                page = await harness.store.list_turns("local", "s", DELTA, 2, cursor, newest_first=newest_first)
                seen.extend(turn.index for turn in page.items)
                assert all(len(turn.blocks) == 2 for turn in page.items)
                if page.next is None:
                    break
                cursor = page.next
            assert seen == expected
        everything = await harness.store.list_turns("local", "s", FULL, 5, None, newest_first=False)
        assert everything.next is None
        assert [turn.blocks for turn in everything.items] == [(await harness.full("s", n)).blocks for n in range(5)]
        basic = await harness.store.list_turns("local", "s", BASIC, 9, None, newest_first=False)
        assert [(turn.blocks, turn.block_count) for turn in basic.items] == [((), 2 * n + 2) for n in range(5)]
        for left, right in pairwise(everything.items):
            assert right.blocks[: len(left.blocks)] == left.blocks

    async def test_a_listing_without_turns(self, harness: Harness) -> None:
        await harness.session("s")
        for newest_first in (False, True):
            for cursor in (None, 0, 7):
                page = await harness.store.list_turns("local", "s", FULL, 5, cursor, newest_first=newest_first)
                assert (page.items, page.next) == ((), None)

    async def test_a_listing_of_large_turns_is_bounded(self, harness: Harness) -> None:
        await harness.session("s")
        for number in range(3):
            await harness.turn("s", "q", *(f"{number}" * 600_000 for _ in range(number + 1)))
        page = await harness.store.list_turns("local", "s", DELTA, 10, None, newest_first=False)
        assert ([len(turn.blocks) for turn in page.items], page.next) == ([2], 1)
        page = await harness.store.list_turns("local", "s", DELTA, 10, 1, newest_first=False)
        assert [len(turn.blocks) for turn in page.items] == [2]
        assert (page.items[0].block_count, page.next) == (5, 2)

    async def test_an_unknown_turn(self, harness: Harness) -> None:
        await harness.session("s")
        await harness.turn("s", "q", "a")
        with pytest.raises(TurnNotFoundError) as caught:
            await harness.full("s", 1)
        assert caught.value.metadata == {"session_id": "s", "index": "1"}

    async def test_every_kind_of_block_comes_back_as_it_was(self, harness: Harness) -> None:
        await harness.session("s")
        blocks = (
            Block("own-id", System("be brief"), "system"),
            Block("", Reasoning("t", "s", "e", "g", "i"), metadata={"a.b@v1": "1"}),
            Block("", ToolCall("c", "f", '{"n": 12345678901234567890}')),
            Block("", ToolUse("c", '"ok"')),
            Block("", Other("image/x", "x/y", b"\x00\xff")),
            Block("", LlmText("par"), status=BlockStatus.INCOMPLETE),
            Block("", LlmText("spoken"), "narrator"),
        )
        claim = await harness.running("s", *blocks[:2])
        await harness.finish(claim, 0, *blocks[2:], outcome=Cancelled())
        shown = (await harness.full("s", 0)).blocks
        assert [block.kind for block in shown] == [block.kind for block in blocks]
        assert [block.status for block in shown] == [block.status for block in blocks]
        assert [block.metadata for block in shown] == [block.metadata for block in blocks]
        roles = ["system", "assistant", "assistant", "tool", "", "assistant", "narrator"]
        assert [block.role for block in shown] == roles
        assert shown[0].id == "own-id"

    async def test_data_is_carried_to_children_without_what_was_for_one_turn(self, harness: Harness) -> None:
        await harness.session("s")
        given = [
            {"app.mode@v1": '"a"', "app.keep@v1": "1", "geppetto.tool_config@v1": "{}"},
            {"app.mode@v1": '"b"', "geppetto.inference_config@v1": "{}"},
            {},
        ]
        for data in given:
            note = {"app.note@v1": "1"} if data else {}
            await harness.store.start(harness.command("s", user("q"), metadata=note, data=data), admit)
            await harness.finish(await harness.claim(), 0)
        turns = [await harness.full("s", index) for index in range(3)]
        assert turns[0].data == given[0]
        assert turns[1].data == {"app.keep@v1": "1", **given[1]}
        assert turns[2].data == {"app.keep@v1": "1", "app.mode@v1": '"b"'}
        for turn in turns:
            own = {"app.note@v1": "1"} if turn.index < 2 else {}
            assert turn.metadata == {
                **own,
                "geppetto.session_id@v1": json.dumps("s"),
                "geppetto.inference_id@v1": json.dumps(turn.inference_id),
            }

    async def test_data_are_replaced_by_a_step_and_by_the_end(self, harness: Harness) -> None:
        await harness.session("s")
        claim = await harness.running("s", user("q"), data={"app.mode@v1": '"a"'})
        events = tuple(harness.deltas(claim, "x"))
        for _ in range(2):
            await harness.store.commit_step(claim.lease, 0, Step(1, (llm("a"),), events=events, data=MODE_B))
            assert (await harness.full("s", 0)).data == MODE_B
        await harness.store.commit_step(claim.lease, 1, Step(2))
        assert (await harness.full("s", 0)).data == MODE_B
        ending = Ending(DONE, blocks=(llm("b"),), data={"app.mode@v1": '"c"'})
        for _ in range(2):
            await harness.store.finish(claim.lease, 1, ending)
            turn = await harness.full("s", 0)
            assert (turn.data, texts(turn)) == ({"app.mode@v1": '"c"'}, ["q", "a", "b"])

    async def test_a_child_carries_the_data_that_are_there_when_it_opens(self, harness: Harness) -> None:
        await harness.session("s")
        claim = await harness.running("s", user("q"), data={"app.mode@v1": '"a"'})
        await harness.start("s", data={"app.own@v1": "1"})
        per_turn = {"geppetto.tool_config@v1": "{}"}
        await harness.store.commit_step(claim.lease, 0, Step(1, data={"app.mode@v1": '"never"'}))
        await harness.store.finish(claim.lease, 0, Ending(DONE, data={**MODE_B, **per_turn}))
        child = await harness.claim()
        assert (await harness.full("s", 0)).data == {**MODE_B, **per_turn}
        assert (await harness.full("s", 1)).data == {**MODE_B, "app.own@v1": "1"}
        await harness.store.finish(child.lease, 0, Ending(DONE, data={}))
        await harness.turn("s", "next", "one")
        assert [(await harness.full("s", index)).data for index in (1, 2)] == [{}, {}]

    async def test_an_end_that_cannot_be_encoded_changes_nothing(self, harness: Harness) -> None:
        await harness.session("s")
        claim = await harness.running("s", user("q"), data=MODE_B)
        before = await harness.everything()
        broken = Ending(DONE, blocks=(llm("a"),), data={"app.mode@v1": "\ud800"}, marks=marks(harness, 1))
        with pytest.raises(UnicodeEncodeError):
            await harness.store.finish(claim.lease, 0, broken)
        assert await harness.everything() == before
        await harness.finish(claim, 0)
        assert (await harness.full("s", 0)).data == MODE_B

    async def test_data_that_others_share_stay_theirs(self, harness: Harness) -> None:
        for session_id in ("a", "b"):
            await harness.session(session_id)
            claim = await harness.running(session_id, data=MODE_B)
            await harness.finish(claim, 0)
        claim = await harness.running("a")
        for number, data in enumerate(({"x.y@v1": "1"}, MODE_B, {"x.y@v1": "1"}, {}, MODE_B), 1):
            await harness.store.commit_step(claim.lease, 0, Step(number, data=data))
            assert (await harness.full("a", 1)).data == data
        await harness.finish(claim, 0)
        for session_id, index in (("a", 0), ("a", 1), ("b", 0)):
            assert (await harness.full(session_id, index)).data == MODE_B

    async def test_deleting_a_session_leaves_what_others_share_with_it(self, harness: Harness) -> None:
        for session_id in ("a", "b"):
            await harness.session(session_id)
            await harness.turn(session_id, "same question", "same answer")
        await harness.delete("a")
        await harness.sweep()
        assert texts(await harness.full("b", 0)) == ["same question", "same answer"]
        await harness.turn("b", "same question", "same answer")
        assert (await harness.full("b", 1)).block_count == 4

"""What every store promises of forks: they share turns with their origin, and outlive it."""

import json
from datetime import timedelta
from typing import Any

import pytest

from contract.store_harness import LEASELESS, Harness, admit, gather, llm, texts, user
from turnwire_server.domain.errors import (
    IdempotencyKeyReusedError,
    ProfileNotFoundError,
    SessionAlreadyExistsError,
    SessionNotFoundError,
    TurnNotClosedError,
    TurnNotFoundError,
)
from turnwire_server.domain.inference import InferenceState
from turnwire_server.domain.session import NewSession, Session, SessionOrigin
from turnwire_server.domain.turn import Turn, TurnView
from turnwire_server.stores.base import Base
from turnwire_server.stores.lease import Step
from turnwire_server.stores.start import Admission, Idempotency, SessionState, StartCommand

_GUARD = Idempotency("ForkSession", "k", b"content")


async def grow(harness: Harness, session_id: str = "s", **fields: Any) -> None:
    """Leave a session of five turns with branches: 0, 1 on it, 2 and 3 on 0 again, 4 on nothing."""
    await harness.session(session_id, **fields)
    await harness.turn(session_id, "q0", "a0", data={"app.mode@v1": '"x"'}, metadata={"app.note@v1": "1"})
    await harness.turn(session_id, "q1", "a1")
    await harness.turn(session_id, "q2", "a2", "b2", parent=0)
    await harness.turn(session_id, "q3", parent=0)
    await harness.turn(session_id, "q4", "a4")


async def turns_of(harness: Harness, session_id: str, view: TurnView = TurnView.FULL) -> list[Turn]:
    """Return all turns, read in both directions, in pages of each size, and one by one."""
    whole = await harness.store.list_turns("local", session_id, view, 100, None, newest_first=False)
    for size in (1, 2, 3):
        for newest_first in (False, True):
            seen: list[Turn] = []
            cursor: int | None = None
            while True:
                page = await harness.store.list_turns(
                    "local", session_id, view, size, cursor, newest_first=newest_first
                )
                seen += page.items
                cursor = page.next
                if cursor is None:
                    break
            assert seen == list(whole.items)[:: -1 if newest_first else 1]
    for turn in whole.items:
        found = await harness.store.get_turn("local", session_id, turn.index, view, 0, 1000)
        assert (found.turn, found.next) == (turn, None)
    return list(whole.items)


def _as_of(turn: Turn, session_id: str) -> tuple[object, ...]:
    """Return what a turn has to say as one of another session."""
    metadata = {**turn.metadata, "geppetto.session_id@v1": json.dumps(session_id)}
    return turn.index, turn.id, turn.inference_id, turn.parent, turn.blocks, metadata, turn.data, turn.create_time


def _said(turn: Turn) -> tuple[object, ...]:
    return turn.index, turn.id, turn.inference_id, turn.parent, turn.blocks, turn.metadata, turn.data, turn.create_time


class ForkPromises:
    """Forking sessions."""

    async def test_a_fork_is_a_new_session(self, harness: Harness) -> None:
        origin = await harness.session("s", display_name="origin", profile="p", labels={"a": "b"})
        await harness.turn("s", "q0", "a0")
        await harness.turn("s", "q1", "a1")
        count = len(harness.commits)
        harness.now += timedelta(seconds=1)
        new = NewSession("f", "fork", {"c": "d"}, {"app.x@v1": "1"}, "other", timedelta(hours=1))
        fork, created = await harness.store.fork_session("local", "s", 0, new, "token", None)
        assert created
        assert fork == Session(
            "f",
            harness.now,
            harness.now,
            fork.log,
            "fork",
            {"c": "d"},
            {"app.x@v1": "1"},
            "other",
            harness.now + timedelta(hours=1),
            turn_count=1,
            origin=SessionOrigin("s", 0),
        )
        assert fork.log not in ("", origin.log)
        assert await harness.store.get_session("local", "f") == fork
        listed = (await harness.store.list_sessions("local", {}, 9, None)).items
        assert listed == (fork, await harness.store.get_session("local", "s"))
        assert len(harness.commits) == count

    @pytest.mark.parametrize("index", range(5))
    async def test_the_turns_are_those_of_the_origin(self, harness: Harness, index: int) -> None:
        await grow(harness)
        await harness.fork("f", "s", index)
        for view in (TurnView.FULL, TurnView.DELTA, TurnView.BASIC):
            shared = await turns_of(harness, "f", view)
            origin = (await turns_of(harness, "s", view))[: index + 1]
            assert [_said(turn) for turn in shared] == [_as_of(turn, "f") for turn in origin]
            assert {turn.session_id for turn in shared} == {"f"}
            assert {turn.session_id for turn in origin} == {"s"}
            counts = [(turn.block_count, turn.inherited_block_count, turn.given_block_count) for turn in origin]
            assert [(t.block_count, t.inherited_block_count, t.given_block_count) for t in shared] == counts
        with pytest.raises(TurnNotFoundError) as caught:
            await harness.full("f", index + 1)
        assert caught.value.metadata == {"session_id": "f", "index": str(index + 1)}
        newest = await harness.full("f", None)
        assert newest.index == index

    async def test_a_fork_has_no_inference_and_no_event_of_its_origin(self, harness: Harness) -> None:
        await harness.session("s")
        done = await harness.turn("s", "q", "a")
        await harness.fork("f")
        assert (await harness.store.list_inferences("local", "f", (), 9, None)).items == ()
        page = await harness.store.read_log("local", "f", 0, 1 << 20)
        assert (page.chunks, page.earliest_sequence, page.head_sequence) == ((), 1, 0)
        assert (await harness.store.read_log("local", "f", 0, 1 << 20, done.inference_id)).chunks == ()
        assert await harness.store.read_base("local", "f") == Base()
        assert (await harness.get(done)).session_id == "s"

    async def test_a_turn_is_built_on_the_newest_one_that_is_shared(self, harness: Harness) -> None:
        await grow(harness)
        await harness.fork("f", index=1)
        inference = await harness.turn("f", "new", "words")
        assert (inference.session_id, inference.turn_index, inference.first_sequence) == ("f", 2, 1)
        turn = await harness.full("f", None)
        assert (turn.session_id, turn.index, turn.parent) == ("f", 2, 1)
        assert texts(turn) == ["q0", "a0", "q1", "a1", "new", "words"]
        assert (turn.block_count, turn.inherited_block_count, turn.given_block_count) == (6, 4, 5)
        assert turn.data == {"app.mode@v1": '"x"'}
        assert (await harness.store.get_session("local", "f")).turn_count == 3
        assert texts(await harness.full("s", 2)) == ["q0", "a0", "q2", "a2", "b2"]
        await harness.turn("f", "and", "on")
        assert texts(await harness.full("f", 3)) == ["q0", "a0", "q1", "a1", "new", "words", "and", "on"]

    @pytest.mark.parametrize("parent", range(5))
    async def test_a_turn_is_built_on_any_that_is_shared(self, harness: Harness, parent: int) -> None:
        await grow(harness)
        before = texts(await harness.full("s", parent))
        await harness.fork("f", index=4)
        seen: list[Turn | None] = []

        def decide(command: StartCommand, state: SessionState) -> Admission:
            seen.append(state.parent)
            return admit(command, state)

        await harness.store.start(harness.command("f", user("new"), parent=parent), decide)
        await harness.finish(await harness.claim(), 0, llm("words"))
        turn = await harness.full("f", 5)
        assert (turn.parent, texts(turn)) == (parent, [*before, "new", "words"])
        assert [(each.session_id, each.index) for each in seen if each] == [("f", parent)]
        for offset in range(len(turn.blocks)):  # a page of it begins anywhere in the chain
            page = await harness.store.get_turn("local", "f", 5, TurnView.FULL, offset, 2)
            assert page.turn.blocks == turn.blocks[offset : offset + 2]
        await harness.store.start(harness.command("f", parent=parent), admit)
        await harness.finish(await harness.claim(), 0, llm("again"))
        assert texts(await harness.full("f", 6)) == [*before, "again"]

    async def test_what_is_not_shared_is_no_parent(self, harness: Harness) -> None:
        await grow(harness)
        await harness.fork("f", index=1)
        before = await harness.everything()
        with pytest.raises(TurnNotFoundError) as caught:
            await harness.start("f", parent=2)
        assert caught.value.metadata == {"session_id": "f", "index": "2"}
        assert await harness.everything() == before

    async def test_origin_and_fork_go_on_each_by_itself(self, harness: Harness) -> None:
        await grow(harness)
        await harness.fork("f", index=2)
        theirs = await harness.running("f", user("in the fork"))
        ours = await harness.running("s", user("in the origin"))
        await harness.finish(ours, 0, llm("o"))
        await harness.finish(theirs, 0, llm("f"))
        assert texts(await harness.full("s", 5))[-2:] == ["in the origin", "o"]
        assert texts(await harness.full("f", 3)) == ["q0", "a0", "q2", "a2", "b2", "in the fork", "f"]
        assert [turn.session_id for turn in await turns_of(harness, "f")] == ["f"] * 4
        assert {event.session_id for event in await harness.events("f")} == {"f"}

    async def test_forks_of_forks(self, harness: Harness) -> None:
        await harness.session("f0")
        for depth in range(5):
            await harness.turn(f"f{depth}", f"q{depth}", f"a{depth}")
            await harness.turn(f"f{depth}", f"not shared by the next ones {depth}")
            await harness.fork(f"f{depth + 1}", f"f{depth}", depth)
            fork = await harness.store.get_session("local", f"f{depth + 1}")
            assert (fork.origin, fork.turn_count) == (SessionOrigin(f"f{depth}", depth), depth + 1)
        for depth in range(1, 6):
            said = [f"{kind}{number}" for number in range(depth) for kind in "qa"]
            assert texts(await harness.full(f"f{depth}", depth - 1)) == said
            turns = await turns_of(harness, f"f{depth}", TurnView.DELTA)
            assert [texts(turn) for turn in turns[:depth]] == [[f"q{n}", f"a{n}"] for n in range(depth)]
        early = await harness.fork("early", "f5", 1)  # at a turn that the fork shares itself
        assert early.origin == SessionOrigin("f5", 1)
        assert texts(await harness.full("early", None)) == ["q0", "a0", "q1", "a1"]

    async def test_without_an_index_all_turns_that_are_closed_are_shared(self, harness: Harness) -> None:
        await harness.session("s")
        await harness.turn("s", "q0", "a0")
        await harness.turn("s", "q1", "a1")
        assert (await harness.fork("f")).origin == SessionOrigin("s", 1)
        await harness.running("s", user("q2"))
        assert (await harness.fork("g")).origin == SessionOrigin("s", 1)
        assert texts(await harness.full("g", None)) == ["q0", "a0", "q1", "a1"]

    @pytest.mark.parametrize("then", [*LEASELESS, InferenceState.RUNNING])
    async def test_an_open_turn_is_not_shared(self, harness: Harness, then: InferenceState) -> None:
        await harness.session("s")
        await harness.turn("s", "q0", "a0")
        if then is InferenceState.RUNNING:
            await harness.running("s")
        else:
            await harness.leaseless("s", then)
        queued = await harness.start("s")
        before = await harness.everything()
        with pytest.raises(TurnNotClosedError) as caught:
            await harness.fork("f", index=1)
        assert caught.value.metadata == {"session_id": "s", "index": "1"}
        with pytest.raises(TurnNotFoundError):
            await harness.fork("f", index=2)
        assert await harness.everything() == before
        assert (await harness.fork("f", index=0)).turn_count == 1
        assert (await harness.fork("g")).turn_count == 1
        assert (await harness.get(queued)).queue_position is not None

    async def test_a_session_without_a_closed_turn_is_not_forked(self, harness: Harness) -> None:
        async def check() -> None:
            for index in (None, 7):
                with pytest.raises(TurnNotFoundError) as caught:
                    await harness.fork("f", index=index)
                assert caught.value.metadata == {"session_id": "s", "index": str(index or 0)}

        await harness.session("s")
        await check()
        await harness.start("s")
        await check()
        await harness.claim()
        await check()
        with pytest.raises(TurnNotClosedError):
            await harness.fork("f", index=0)
        with pytest.raises(SessionNotFoundError):
            await harness.store.get_session("local", "f")

    async def test_what_is_refused_changes_nothing(self, harness: Harness) -> None:
        await grow(harness)
        await harness.session("theirs", principal="other")
        before = await harness.everything()
        with pytest.raises(SessionNotFoundError) as caught:
            await harness.fork("f", "theirs")
        assert caught.value.metadata == {"session_id": "theirs"}
        for taken in ("s", "s"):
            with pytest.raises(SessionAlreadyExistsError):
                await harness.fork(taken)

        def refuse() -> None:
            raise ProfileNotFoundError(profile="p")

        for guard in (None, _GUARD):
            with pytest.raises(ProfileNotFoundError):
                await harness.store.fork_session("local", "nobody", 99, NewSession("f"), "t", guard, refuse)
        assert await harness.everything() == before
        _, created = await harness.store.fork_session("local", "s", None, NewSession("f"), "t", _GUARD)
        assert created  # token and key were free

    async def test_a_key_makes_one_fork(self, harness: Harness) -> None:
        await grow(harness)
        first, created = await harness.store.fork_session("local", "s", 1, NewSession("f"), "t1", _GUARD)
        assert created
        await harness.turn("f", "q", "a")
        again, created = await harness.store.fork_session("local", "s", 1, NewSession("g"), "t2", _GUARD)
        assert (again.session_id, again.turn_count, created) == ("f", 3, False)
        same, created = await harness.store.fork_session("local", "s", 1, NewSession("f"), "t1", _GUARD)
        assert (same, created) == (again, True)
        other = Idempotency("ForkSession", "k", b"other content")
        with pytest.raises(IdempotencyKeyReusedError) as caught:
            await harness.store.fork_session("local", "s", 2, NewSession("h"), "t3", other)
        assert caught.value.metadata == {"rpc": "ForkSession"}
        await harness.delete("s")
        assert await harness.store.fork_session("local", "s", 1, NewSession("g"), "t2", _GUARD) == (again, False)
        await harness.delete("f")
        with pytest.raises(SessionNotFoundError) as gone:
            await harness.store.fork_session("local", "s", 1, NewSession("g"), "t2", _GUARD)
        assert gone.value.metadata == {"session_id": "f"}
        assert first.origin == SessionOrigin("s", 1)

    async def test_forks_that_are_made_at_the_same_time(self, harness: Harness) -> None:
        await grow(harness)
        claim = await harness.running("s", user("q5"))
        results = await gather(  # a store that commits in groups has these in one transaction
            harness.fork("f1"),
            harness.store.commit_step(claim.lease, 0, Step(1, (llm("a"),))),
            harness.finish(claim, 0),
            harness.fork("f2"),
            harness.delete("s"),
            harness.fork("f3", "f2", 2),
            harness.start("f3", user("on")),
        )
        assert not [result for result in results if isinstance(result, BaseException)]
        await harness.sweep()
        counts = [(await harness.store.get_session("local", name)).turn_count for name in ("f1", "f2", "f3")]
        assert counts == [5, 6, 3]
        await harness.finish(await harness.claim(), 0, llm("off"))
        assert texts(await harness.full("f3", None)) == ["q0", "a0", "q2", "a2", "b2", "on", "off"]

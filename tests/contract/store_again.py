"""What every store promises of all of its calls: each may be sent again, and returns once it was published."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from contract.store_calls import CALLS, GUARD, READS, WRITES, delete
from contract.store_harness import Harness, gather
from turnwire_server.domain.errors import (
    InferenceNotFoundError,
    SessionAlreadyExistsError,
    SessionNotFoundError,
    StoreUnavailableError,
)
from turnwire_server.domain.inference import Inference, InferenceState
from turnwire_server.domain.session import NewSession, Session, SessionChange, StepMode
from turnwire_server.stores.base import TOKEN_AGE_MIN, SessionStore
from turnwire_server.stores.lease import Claim, DeclaredDead, Fenced
from turnwire_server.stores.start import Started

# What may have become of a call whose session was deleted.
_REFUSALS = (
    SessionNotFoundError,
    SessionAlreadyExistsError,
    InferenceNotFoundError,
    Fenced,
    DeclaredDead,
    ValueError,
)

# The calls that are known again by their token, or by their key.
_WITH_TOKEN = ("update_session", "set_step_mode", "amend")


class CallPromises:
    """Every call."""

    def test_these_are_all_calls(self) -> None:
        calls = {name for name in vars(SessionStore) if not name.startswith("_")} - {"close"}
        assert {name.partition(":")[0] for name in CALLS} == calls

    @pytest.mark.parametrize("name", [*WRITES, *READS])
    async def test_a_call_may_be_sent_again(self, harness: Harness, name: str) -> None:
        await harness.session("s")
        send = await CALLS[name](harness)
        first = await send()
        before, chunks = await harness.everything(), _published(harness)
        for _ in range(2):
            assert await send() == first
        assert await harness.everything() == before
        assert _published(harness) == chunks

    @pytest.mark.parametrize("name", [*WRITES, *READS])
    async def test_a_call_may_be_sent_while_it_is_under_way(self, harness: Harness, name: str) -> None:
        await harness.session("s")
        send = await CALLS[name](harness)
        first, second = await gather(send(), send())
        assert first == second
        before, chunks = await harness.everything(), _published(harness)
        assert await send() == first
        assert await harness.everything() == before
        assert _published(harness) == chunks

    @pytest.mark.parametrize("name", WRITES)
    async def test_a_call_may_be_sent_again_after_others_called(self, harness: Harness, name: str) -> None:
        for session_id in ("s", "o"):
            await harness.session(session_id)
        send = await WRITES[name](harness)
        first = await send()
        harness.now += timedelta(milliseconds=1)
        await _call_as_others(harness)
        before, chunks = await harness.everything(), _published(harness)
        assert await send() == await _as_it_is_now(harness, first)
        assert await harness.everything() == before
        assert _published(harness) == chunks

    @pytest.mark.parametrize(
        "name", [name for name in WRITES if name.startswith(("update_session", "set_step_mode", "amend"))]
    )
    async def test_a_token_is_remembered_for_a_while(self, harness: Harness, name: str) -> None:
        for session_id in ("s", "o"):
            await harness.session(session_id)
        send = await WRITES[name](harness)
        first = await send()
        harness.now += TOKEN_AGE_MIN
        await harness.sweep()
        await _call_as_others(harness)
        before, chunks = await harness.everything(), _published(harness)
        assert await send() == await _as_it_is_now(harness, first)
        assert await harness.everything() == before
        assert _published(harness) == chunks

    @pytest.mark.parametrize("is_replaced", [False, True], ids=["", "and replaced"])
    @pytest.mark.parametrize("name", WRITES)
    async def test_a_call_sent_again_after_a_deletion_finds_nothing(
        self, harness: Harness, name: str, is_replaced: bool
    ) -> None:
        await harness.session("s")
        send = await WRITES[name](harness)
        await send()
        for session in (await harness.store.list_sessions("local", {}, 9, None)).items:
            await harness.delete(session.session_id, force=True)
            if is_replaced:
                await harness.session(session.session_id)
        before, chunks = await harness.everything(), _published(harness)
        [answer] = await gather(send())
        assert not isinstance(answer, Exception) or isinstance(answer, _REFUSALS)
        assert await harness.everything() == before
        assert _published(harness) == chunks

    @pytest.mark.parametrize("name", ["hand_back", "commit_step: and wait", "commit_step: and pause"])
    async def test_a_release_sent_again_after_a_cancel(self, harness: Harness, name: str) -> None:
        await harness.session("s")
        send = await WRITES[name](harness)
        released = await send()
        assert isinstance(released, Inference)
        ended = await harness.cancel(released, "stop")
        assert ended.state is InferenceState.CANCELLED
        before = await harness.everything()
        assert await send() == ended
        assert await harness.everything() == before

    async def test_a_deletion_may_be_sent_again(self, harness: Harness) -> None:
        await harness.session("s")
        send = await delete(harness)
        assert await send() is None
        chunks = _published(harness)
        with pytest.raises(SessionNotFoundError):
            await send()
        await harness.session("s")
        await harness.running("s")
        before = await harness.everything()
        with pytest.raises(SessionNotFoundError):  # what has its name now has another log
            await send()
        assert await harness.everything() == before
        assert _published(harness)[: len(chunks)] == chunks

    @pytest.mark.parametrize("name", [*WRITES, "delete_session"])
    async def test_a_call_returns_once_it_was_published(self, harness: Harness, name: str) -> None:
        await harness.session("s")
        send = await CALLS[name](harness)
        await send()
        await harness.check()
        if name != "delete_session":
            session = await harness.store.get_session("local", "s")
            published = [c for commit in harness.commits if commit.session_id == "s" for c in commit.chunks]
            assert session.head_sequence == (published[-1].last_sequence if published else 0)
        else:
            assert harness.commits[-1].is_deleted

    @pytest.mark.parametrize("name", CALLS)
    async def test_a_closed_store_refuses_a_call(self, harness: Harness, name: str) -> None:
        await harness.session("s")
        send = await CALLS[name](harness)
        await harness.check()
        for _ in range(2):
            await harness.store.close()
        count = len(harness.commits)
        with pytest.raises(StoreUnavailableError) as caught:
            await send()
        assert caught.value.is_definite
        assert len(harness.commits) == count
        harness.commits.clear()

    async def test_what_is_under_way_is_committed_when_a_store_is_closed(self, harness: Harness) -> None:
        await harness.session("s")
        claim = await harness.running("s")
        events = harness.deltas(claim, *"abcde")
        calls = [
            asyncio.create_task(harness.store.append(claim.lease, position, [event]))
            for position, event in enumerate(events)
        ]
        await asyncio.sleep(0)  # now they are under way
        await harness.store.close()
        await asyncio.gather(*calls)
        assert harness.commits[-1].chunks[-1].last_sequence == 8
        harness.commits.clear()


def _published(harness: Harness) -> list[object]:
    return [commit for commit in harness.commits if commit.chunks or commit.is_deleted]


async def _call_as_others(harness: Harness) -> None:
    """Do what others may do while somebody waits for an answer about the session `s`."""
    await harness.store.register("others")
    await harness.cancel(await harness.start("o"), "changed their mind")
    await harness.store.update_session("local", "o", SessionChange("theirs"), None, harness.mint())
    await harness.store.update_session("local", "s", SessionChange("theirs"), None, harness.mint())
    await harness.store.set_step_mode("local", "s", StepMode(timedelta(seconds=2)), harness.mint())
    await harness.start("s")
    line = await harness.store.list_inferences("local", "s", (), 9, None)
    await harness.cancel(line.items[0], "not needed")
    await harness.store.create_session("other", NewSession("t"), harness.mint(), GUARD)
    await harness.store.heartbeat("others")
    await harness.store.sweep(harness.now)


async def _as_it_is_now(harness: Harness, told: object) -> object:
    """Return an answer with what has become of it since."""
    match told:
        case Session():
            return await harness.store.get_session("local", told.session_id)
        case (Session() as session, created):
            return await harness.store.get_session("local", session.session_id), created
        case Inference():
            return await harness.get(told)
        case Started(inference, created):
            return Started(await harness.get(inference), created)
        case tuple():
            return tuple([replace(claim, inference=await harness.get(claim.inference)) for claim in _claims(told)])
        case _:
            return told


def _claims(told: tuple[object, ...]) -> list[Claim]:
    return [each for each in told if isinstance(each, Claim)]

"""What every store promises of forks and their origins when these are deleted."""

import pytest

from contract.store_forks import grow, turns_of
from contract.store_harness import Harness, texts
from turnwire_server.domain.errors import InferenceNotFoundError, TurnNotFoundError


class ForkDeletionPromises:
    """Turns outlive the session that they come from, and nothing else of it does."""

    @pytest.mark.parametrize("index", range(5))
    async def test_a_fork_outlives_its_origin(self, harness: Harness, index: int) -> None:
        await grow(harness, metadata={"app.x@v1": "1"})
        inferences = (await harness.store.list_inferences("local", "s", (), 9, None)).items
        await harness.fork("f", index=index)
        before, fork = await turns_of(harness, "f"), await harness.store.get_session("local", "f")
        await harness.delete("s")
        assert await turns_of(harness, "f") == before
        await harness.sweep()
        assert await turns_of(harness, "f") == before
        assert await harness.store.get_session("local", "f") == fork
        for inference in inferences:
            with pytest.raises(InferenceNotFoundError):
                await harness.get(inference)
        await harness.turn("f", "new", "words", parent=index)
        assert texts(await harness.full("f", None)) == [*texts(before[-1]), "new", "words"]
        assert not await harness.store.sweep(harness.now)

    async def test_a_new_session_with_the_name_of_the_origin_is_another_one(self, harness: Harness) -> None:
        await grow(harness)
        await harness.fork("f", index=3)
        before = await turns_of(harness, "f")
        await harness.delete("s")
        await harness.session("s")
        with pytest.raises(TurnNotFoundError):
            await harness.full("s", 0)
        await harness.turn("s", "of another", "session")
        await harness.sweep()
        assert await turns_of(harness, "f") == before
        assert texts(await harness.full("s", None)) == ["of another", "session"]
        await harness.delete("s")
        await harness.sweep()
        assert await turns_of(harness, "f") == before

    async def test_a_fork_of_a_fork_outlives_both(self, harness: Harness) -> None:
        await grow(harness)
        await harness.fork("f", index=2)
        await harness.turn("f", "f3", "F3")
        await harness.fork("g", "f", 3)
        await harness.turn("g", "g4", "G4")
        before = await turns_of(harness, "g")
        for gone in ("f", "s"):
            await harness.delete(gone)
            await harness.sweep()
            assert await turns_of(harness, "g") == before
        await harness.fork("h", "g", 1)  # the one that has this turn is deleted
        await harness.delete("g")
        await harness.sweep()
        assert texts(await harness.full("h", None)) == ["q0", "a0", "q1", "a1"]
        assert [turn.blocks for turn in await turns_of(harness, "h")] == [turn.blocks for turn in before[:2]]

    async def test_deleting_a_fork_leaves_its_origin_as_it_was(self, harness: Harness) -> None:
        await grow(harness)
        before = await harness.everything()
        await harness.fork("f", index=3)
        await harness.turn("f", "q0", "a0")
        await harness.delete("f")
        await harness.sweep()
        assert await harness.everything() == before

    async def test_a_fork_of_another_one_keeps_its_own(self, harness: Harness) -> None:
        await grow(harness)
        for name, index in (("high", 3), ("low", 1)):
            await harness.fork(name, index=index)
        low = await turns_of(harness, "low")
        for gone in ("s", "high"):
            await harness.delete(gone)
            await harness.sweep()
        assert await turns_of(harness, "low") == low
        assert not await harness.store.sweep(harness.now)

    async def test_an_origin_that_is_large_is_purged_all_the_same(self, harness: Harness) -> None:
        await harness.session("s")
        for number in range(450):
            await harness.turn("s", f"q{number}")
            await harness.cancel(await harness.start("s"))  # it never has a turn
        await harness.fork("f", index=300)
        before = texts(await harness.full("f", None))
        await harness.delete("s")
        await harness.sweep()
        assert texts(await harness.full("f", None)) == before
        await harness.delete("f")
        await harness.sweep()
        assert not await harness.store.sweep(harness.now)

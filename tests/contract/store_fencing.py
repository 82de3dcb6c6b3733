"""What every store promises of leases that are not, or no longer, the right to write: Fenced, and nothing changed."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace

import pytest

from contract.store_harness import DONE, LEASELESS, Harness
from turnwire_server.domain.inference import InferenceState
from turnwire_server.stores.base import SessionStore
from turnwire_server.stores.lease import Effect, Ending, Fenced, Lease, Step


@dataclass(frozen=True)
class Place:
    """Where somebody writes: under which lease, from which position, after how many steps, one event."""

    lease: Lease
    position: int
    event: bytes
    step: int = 0


Write = Callable[[SessionStore, Place], Awaitable[object]]
Fence = Callable[[Harness], Awaitable[Place]]

WRITES: Mapping[str, Write] = {
    "append": lambda store, at: store.append(at.lease, at.position, [at.event]),
    "record_effects": lambda store, at: store.record_effects(at.lease, at.position, [Effect("c")], [at.event]),
    "record_outcome": lambda store, at: store.record_effects(at.lease, at.position, [Effect("new", b"x")]),
    "commit_step": lambda store, at: store.commit_step(at.lease, at.position, Step(at.step + 1, events=(at.event,))),
    "hand_back": lambda store, at: store.hand_back(at.lease, at.position, is_loss=True),
    "finish": lambda store, at: store.finish(at.lease, at.position, Ending(DONE, events=(at.event,))),
}


async def _run(harness: Harness) -> Place:
    """Run an inference up to position 3."""
    await harness.session("s")
    claim = await harness.running("s")
    events = harness.deltas(claim, "a", "b", "c")
    await harness.store.append(claim.lease, 0, events)
    return Place(claim.lease, 3, events[0])


def _elsewhere(**change: str) -> Fence:
    async def fence(harness: Harness) -> Place:
        place = await _run(harness)
        return replace(place, lease=replace(place.lease, **change))

    return fence


def _at(position: int) -> Fence:
    async def fence(harness: Harness) -> Place:
        return replace(await _run(harness), position=position)

    return fence


def _leaseless(then: InferenceState, *, is_released: bool = False) -> Fence:
    async def fence(harness: Harness) -> Place:
        await harness.session("s")
        claim = await harness.leaseless("s", then)
        if is_released:
            await harness.amend(claim)
        return Place(claim.lease, 1, harness.deltas(claim, "x")[0], step=1)

    return fence


async def _queued(harness: Harness) -> Place:
    await harness.session("s")
    inference = await harness.start("s")
    return Place(Lease("local", inference.inference_id, ""), 0, b"")


async def _ended(harness: Harness) -> Place:
    place = await _run(harness)
    await harness.store.finish(place.lease, 3, Ending(DONE))
    return place


async def _revoked(harness: Harness) -> Place:
    place = await _run(harness)
    await harness.store.revoke("me", [place.lease.token])
    return place


async def _revoked_without_a_token(harness: Harness) -> Place:
    place = await _revoked(harness)
    return replace(place, lease=replace(place.lease, token=""))


async def _taken_over(harness: Harness) -> Place:
    place = await _revoked(harness)
    await harness.store.register("you")
    await harness.claim("you")
    return place


async def _dead(harness: Harness) -> Place:
    place = await _run(harness)
    await harness.store.register("you")
    beats = (await harness.store.heartbeat("you")).beats
    assert await harness.store.declare_dead("me", beats["me"])
    return place


async def _claimed_again(harness: Harness) -> Place:
    place = await _run(harness)
    await harness.store.hand_back(place.lease, 3, is_loss=False)
    await harness.claim()
    return place


async def _deleted(harness: Harness) -> Place:
    place = await _run(harness)
    await harness.delete("s", force=True)
    return place


async def _deleted_and_created_again(harness: Harness) -> Place:
    place = await _deleted(harness)
    await harness.session("s")
    await harness.running("s")
    return place


FENCES: Mapping[str, Fence] = {
    "another token": _elsewhere(token="forged"),
    "no token": _elsewhere(token=""),
    "another inference": _elsewhere(inference_id="nothing"),
    "another principal": _elsewhere(principal="other"),
    "ahead": _at(4),
    "behind": _at(0),
    "just behind": _at(1),
    "queued": _queued,
    "ended": _ended,
    "revoked": _revoked,
    "revoked, without a token": _revoked_without_a_token,
    "taken over": _taken_over,
    "declared dead": _dead,
    **{f"leaseless: {then.name}": _leaseless(then) for then in LEASELESS},
    "released": _leaseless(InferenceState.WAITING_FOR_TOOLS, is_released=True),
    "handed back and claimed again": _claimed_again,
    "deleted": _deleted,
    "deleted and created again": _deleted_and_created_again,
}

# A hand back that is sent again finds what it did.
_ARE_SENT_AGAIN = {("hand_back", "leaseless: QUEUED")}


class FencingPromises:
    """An inference is written under its lease only, from its position only."""

    @pytest.mark.parametrize("fence", FENCES)
    @pytest.mark.parametrize("write", WRITES)
    async def test_fenced(self, harness: Harness, write: str, fence: str) -> None:
        if (write, fence) in _ARE_SENT_AGAIN:
            return
        place = await FENCES[fence](harness)
        before, commits = await harness.everything(), len(harness.commits)
        with pytest.raises(Fenced):
            await WRITES[write](harness.store, place)
        assert await harness.everything() == before
        assert len(harness.commits) == commits

    @pytest.mark.parametrize("write", WRITES)
    async def test_a_fenced_call_changes_nothing_for_who_has_the_lease(self, harness: Harness, write: str) -> None:
        place = await _run(harness)
        await harness.store.record_effects(place.lease, 3, [Effect("c")])
        [before] = await harness.store.claim("me", [place.lease.token])
        for position in (0, 1, 4):
            with pytest.raises(Fenced):
                await WRITES[write](harness.store, replace(place, position=position))
        assert await harness.store.claim("me", [place.lease.token]) == (before,)
        await harness.store.append(place.lease, 3, [place.event])

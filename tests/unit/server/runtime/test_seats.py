"""Starts that bring a seat of the supervisor: what has taken one runs, whatever becomes of the call."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from support.supervised import HANG, World
from turnwire_server.domain.errors import SessionBusyError, StoreUnavailableError
from turnwire_server.domain.ids import LOCAL
from turnwire_server.domain.inference import Inference, InferenceState
from turnwire_server.stores.start import Seat, Started
from turnwire_server.telemetry.logs import bound_to

UNKNOWN = StoreUnavailableError("for a test")
REFUSED = SessionBusyError(session_id="s", inference_id="i")


async def _ready(world: World) -> None:
    """Return once the supervisor has looked for what may run, and found nothing."""
    inference = await world.start("first")
    await world.wait(inference, InferenceState.SUCCEEDED)
    await _until(lambda: world.supervisor.running_count == 0)


async def _until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not is_so():  # noqa: ASYNC110 - turns of the loop, which it runs in as well
            await asyncio.sleep(0.01)


async def _until_has(world: World, session_id: str) -> None:
    async with asyncio.timeout(10):
        while not await world.has(session_id):  # noqa: ASYNC110 - turns of the loop, which it runs in as well
            await asyncio.sleep(0.01)


async def _only(world: World, session_id: str) -> Inference:
    page = await world.store.list_inferences(LOCAL, session_id, (), 10, None)
    [inference] = page.items
    return inference


async def test_what_takes_a_seat_runs_without_a_claim() -> None:
    world = World()
    async with world.at_work():
        await _ready(world)
        world.store.holding.add("claim")
        inference = await world.start("s", is_seated=True)
        assert inference.state is InferenceState.RUNNING
        assert (await world.wait(inference, InferenceState.SUCCEEDED)).attempt == 0
        world.store.holding.clear()


async def test_it_does_not_run_in_the_name_of_the_call() -> None:
    world = World()
    async with world.at_work():
        await _ready(world)
        with bound_to(rpc="StartInference"):
            inference = await world.start("s", is_seated=True)
        await world.wait(inference, InferenceState.SUCCEEDED)
    assert world.engine.bound == {"session_id": "s", "inference_id": inference.inference_id}


async def test_its_turn_needs_not_be_read() -> None:
    world = World()
    async with world.at_work():
        await _ready(world)
        world.store.holding.add("get_turn")
        inference = await world.start("s", is_seated=True)
        await world.wait(inference, InferenceState.SUCCEEDED)
    [turn] = await world.turns("s")
    assert turn.block_count == 2


async def test_a_start_that_is_cancelled_while_it_happens_is_no_loss() -> None:
    world = World(speed=5)
    async with world.at_work():
        await _ready(world)
        world.store.delays["start"] = 3600
        starting = asyncio.create_task(world.start("s", is_seated=True))
        await _until_has(world, "s")
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        ended = await world.wait(await _only(world, "s"), InferenceState.SUCCEEDED)
        assert (ended.attempt, world.engine.count) == (0, 2)


async def test_a_start_that_is_not_answered_is_no_loss() -> None:
    world = World(speed=5)
    async with world.at_work():
        await _ready(world)
        world.store.errors_after["start"] = [UNKNOWN]
        with pytest.raises(StoreUnavailableError):
            await world.start("s", is_seated=True)
        ended = await world.wait(await _only(world, "s"), InferenceState.SUCCEEDED)
        assert (ended.attempt, world.engine.count) == (0, 2)


async def test_a_start_that_takes_long_is_no_loss() -> None:
    world = World(speed=5)
    async with world.at_work():
        await _ready(world)
        world.store.delays["start"] = 0.5  # several beats, each of which finds a lease that it does not know
        inference = await world.start("s", is_seated=True)
        assert (await world.wait(inference, InferenceState.SUCCEEDED)).attempt == 0
        assert world.engine.count == 2


async def test_a_cancel_that_overtakes_the_answer_is_heeded() -> None:
    world = World()
    async with world.at_work():
        await _ready(world)
        world.store.holding.add("heartbeat")  # which would tell of it as well
        world.store.delays["start"] = 0.3
        starting = asyncio.create_task(world.start("s", HANG, is_seated=True))
        await _until_has(world, "s")
        running = await _only(world, "s")
        await world.store.request_cancel(LOCAL, running.inference_id, "")
        world.cancel(running)
        await starting
        await world.wait(running, InferenceState.CANCELLED)
        world.store.holding.clear()


async def test_a_drain_hands_back_what_a_start_under_way_has_taken() -> None:
    world = World()
    async with world.at_work():
        await _ready(world)
        world.store.delays["start"] = 0.3
        starting = asyncio.create_task(world.start("s", HANG, is_seated=True))
        await _until_has(world, "s")
    found = await _only(world, "s")
    assert (found.state, found.attempt) == (InferenceState.QUEUED, 0)
    await starting


async def test_a_start_that_is_answered_after_everything_has_ended_is_handed_back() -> None:
    world = World(speed=50)  # the drain does not wait for long
    async with world.at_work():
        await _ready(world)
        world.store.delays["start"] = 0.3
        starting = asyncio.create_task(world.start("s", HANG, is_seated=True))
        await _until_has(world, "s")
    answered = await starting
    assert answered.state is InferenceState.QUEUED
    found = await _only(world, "s")
    assert (found.state, found.attempt) == (InferenceState.QUEUED, 0)


async def test_a_seat_that_comes_back_is_not_missed_by_who_waits_for_it() -> None:
    world = World(running_max=1)
    async with world.at_work():
        await _ready(world)
        decided = asyncio.Event()

        async def refuse(seat: Seat | None) -> Started:
            assert seat
            await decided.wait()
            raise REFUSED

        refused = asyncio.create_task(world.supervisor.start(refuse))
        await asyncio.sleep(0)
        waiting = await world.start("waiting")
        await asyncio.sleep(0.05)
        assert (await _only(world, "waiting")).state is InferenceState.QUEUED, "the other one has the seat"
        decided.set()
        with pytest.raises(SessionBusyError):
            await refused
        began = asyncio.get_running_loop().time()
        await world.wait(waiting, InferenceState.SUCCEEDED)
        assert asyncio.get_running_loop().time() - began < 0.3, "less than until the next look at the store"


async def test_starts_that_take_seats_cause_no_claims() -> None:
    world = World()
    count = 0
    async with world.at_work():
        await _ready(world)
        claim = world.store.claim

        async def counting(*arguments: Any, **named: Any) -> Any:
            nonlocal count
            count += 1
            return await claim(*arguments, **named)

        world.store.__dict__["claim"] = counting
        for number in range(50):
            await world.start(f"s{number}", HANG, is_seated=True)
        assert count <= 2
        await _until(lambda: world.engine.running == 50)


async def test_what_waits_comes_before_what_is_started_where_there_is_room_for_one() -> None:
    world = World(running_max=1)
    async with world.at_work():
        first = await world.start("first", HANG)
        await world.wait(first, InferenceState.RUNNING)
        waiting = await world.start("waiting", HANG)
        assert (await world.start("late", HANG, is_seated=True)).state is InferenceState.QUEUED
        world.store.delays["claim"] = 0.2
        await world.store.request_cancel(LOCAL, first.inference_id, "")
        world.cancel(first)
        await world.wait(first, InferenceState.CANCELLED)
        await _until(lambda: world.supervisor.running_count == 0)
        assert (await world.start("later", HANG, is_seated=True)).state is InferenceState.QUEUED
        await world.wait(waiting, InferenceState.RUNNING)


async def test_no_more_run_than_may() -> None:
    world = World(running_max=4)
    async with world.at_work():
        await _ready(world)
        starts = (world.start(f"s{number}", HANG, is_seated=True) for number in range(12))
        await asyncio.gather(*starts)
        await _until(lambda: world.engine.running == 4)
        await asyncio.sleep(0.1)
        assert world.engine.running == 4


@pytest.mark.parametrize("error", [REFUSED, StoreUnavailableError("for a test", is_definite=True)])
async def test_a_start_that_did_not_happen_gives_its_seat_back(error: Exception) -> None:
    world = World(running_max=2)
    async with world.at_work():
        await _ready(world)
        for number in range(5):
            world.store.errors["start"] = [error]
            with pytest.raises(type(error)):
                await world.start(f"refused-{number}", is_seated=True)
        inference = await world.start("s", is_seated=True)
        await world.wait(inference, InferenceState.SUCCEEDED)

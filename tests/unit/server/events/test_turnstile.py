"""The turnstile: so much in a turn of the event loop, in the order in which they came, whoever leaves meanwhile."""

import asyncio
from collections.abc import Sequence

import pytest

from turnwire_server.events.turnstile import RESPONSE_BYTES, TURN_BYTES, Turnstile

LIMIT = 4 * RESPONSE_BYTES


class Stage:
    """Streams that pass a turnstile, and the turns of the event loop in which they did."""

    def __init__(self) -> None:
        self.turnstile = Turnstile(LIMIT)
        self.turn = 0
        self.passed: list[tuple[int, str]] = []
        self.tasks: dict[str, asyncio.Task[None]] = {}

    def send(self, name: str, size: int = 0) -> asyncio.Task[None]:
        """Let a stream come."""
        self.tasks[name] = asyncio.create_task(self._pass(name, size))
        return self.tasks[name]

    async def _pass(self, name: str, size: int) -> None:
        await self.turnstile.wait_to_pass(size)
        self.passed.append((self.turn, name))

    async def run(self) -> None:
        """Go from turn to turn until all have passed or left."""
        while not all(task.done() for task in self.tasks.values()):
            self.turn += 1
            await asyncio.sleep(0)

    def together(self) -> Sequence[str]:
        """Return who passed, those of a turn in one word."""
        turns = sorted({turn for turn, _ in self.passed})
        return ["".join(name for turn, name in self.passed if turn == each) for each in turns]


async def test_a_turn_lets_so_many_pass_and_those_who_came_first() -> None:
    stage = Stage()
    for name in "abcdefghij":
        stage.send(name)
    await stage.run()
    assert stage.together() == ["abcd", "efgh", "ij"]
    assert stage.turnstile.waiting_count == 0


async def test_bytes_count() -> None:
    stage = Stage()
    half = LIMIT // 2 - RESPONSE_BYTES
    for name in "abcde":
        stage.send(name, half)
    await stage.run()
    assert stage.together() == ["ab", "cd", "e"]


async def test_what_is_taken_beyond_a_turn_is_missing_in_the_next_ones() -> None:
    stage = Stage()
    for name, size in (("a", 0), ("L", 3 * LIMIT), ("b", 0), ("c", 0)):
        stage.send(name, size)
    await stage.run()
    assert stage.together() == ["aL", "bc"]
    turns = {name: turn for turn, name in stage.passed}
    assert turns["b"] - turns["L"] > 3


async def test_nobody_overtakes_one_that_waits() -> None:
    stage = Stage()
    stage.send("a", LIMIT)
    stage.send("b", LIMIT)
    await asyncio.sleep(0)
    stage.send("c")
    await stage.run()
    assert [name for _, name in stage.passed] == ["a", "b", "c"]


@pytest.mark.parametrize("left", range(12))
async def test_whoever_leaves_gives_the_others_its_place(left: int) -> None:
    stage = Stage()
    names = "abcdefghijkl"
    for name in names:
        stage.send(name)
    await asyncio.sleep(0)  # the first ones have passed, the others wait
    stage.tasks[names[left]].cancel()
    await stage.run()
    expected = [name for name in names if stage.tasks[name].done() and not stage.tasks[name].cancelled()]
    assert [name for _, name in stage.passed] == expected
    assert len(expected) >= len(names) - 1
    assert stage.turnstile.waiting_count == 0


async def test_whoever_leaves_after_being_let_in_holds_nobody_up() -> None:
    stage = Stage()
    for name in "abcdefgh":
        stage.send(name)
    while len(stage.passed) < 4:  # noqa: ASYNC110 - it is turns of the loop that are counted
        await asyncio.sleep(0)
    for name in "efgh":  # some of them may pass with this very turn
        stage.tasks[name].cancel()
    stage.send("z")
    await stage.run()
    assert stage.passed[-1][1] == "z"
    assert stage.turnstile.waiting_count == 0


async def test_all_can_leave() -> None:
    stage = Stage()
    for name in "abcdefgh":
        stage.send(name)
    await asyncio.sleep(0)
    for task in stage.tasks.values():
        task.cancel()
    await asyncio.gather(*stage.tasks.values(), return_exceptions=True)
    assert stage.turnstile.waiting_count == 0
    await asyncio.wait_for(stage.turnstile.wait_to_pass(TURN_BYTES), 1)


async def test_a_new_turn_has_all_its_room() -> None:
    turnstile = Turnstile(LIMIT)
    for _ in range(3):
        await turnstile.wait_to_pass(LIMIT)
        await asyncio.sleep(0)
    assert turnstile.waiting_count == 0

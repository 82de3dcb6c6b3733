"""system_prompt: what the engine sees first."""

from turnwire_server.domain.turn import Block, System
from turnwire_server.middleware.system_prompt import SystemPrompt, SystemPromptSettings
from unit.server.middleware.stage import USER, Play, engine_call

CLIENTS = Block("b0", System("the client's"), "system")


def prompt(text: str) -> SystemPrompt:
    return SystemPrompt(SystemPromptSettings(text=text))


async def test_prompt_is_before_what_the_client_said() -> None:
    play = Play()
    await play.run(prompt("be kind"), engine_call(blocks=(CLIENTS, USER)))
    assert play.seen[0].blocks == (Block("", System("be kind"), "system"), CLIENTS, USER)
    assert play.text == "hello"


async def test_same_text_is_not_said_twice() -> None:
    play = Play()
    blocks = (CLIENTS, USER, Block("b2", System("be kind"), "system"))
    await play.run([prompt("be kind"), prompt("the client's")], engine_call(blocks=blocks))
    assert play.seen[0].blocks == blocks


async def test_prompts_are_in_the_order_of_the_profile() -> None:
    play = Play()
    await play.run([prompt("one"), prompt("two"), prompt("one")], engine_call(blocks=(CLIENTS, USER)))
    assert play.instructions == ["one", "two", "the client's"]


async def test_prompt_of_a_turn_of_nothing_else() -> None:
    play = Play()
    await play.run([prompt("one"), prompt("two")], engine_call(blocks=()))
    assert play.instructions == ["one", "two"]


async def test_empty_prompt_adds_nothing() -> None:
    play = Play()
    await play.run(prompt(""), engine_call())
    assert play.seen[0].blocks == (USER,)

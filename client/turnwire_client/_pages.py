"""Turns: how much of them is shown, the pages of blocks that they come in, and what their inference produced."""

from collections.abc import Sequence
from typing import Literal, TypeAlias

from turnwire.v1.session_service_pb2 import GetTurnRequest
from turnwire.v1.turn_pb2 import Block, Turn, TurnView
from turnwire_client._transport import Transport

# How much of the turn an answer has: no blocks, what this inference was given and made, or all blocks of its ancestry.
View: TypeAlias = Literal["basic", "delta", "full"]

VIEWS: dict[View, TurnView.ValueType] = {
    "basic": TurnView.TURN_VIEW_BASIC,
    "delta": TurnView.TURN_VIEW_DELTA,
    "full": TurnView.TURN_VIEW_FULL,
}


async def complete_turn(transport: Transport, request: GetTurnRequest, turn: Turn) -> Turn:
    """Adds to a turn the blocks of the pages that follow the request's page token."""
    while request.page_token:
        response = await transport.call(transport.sessions.GetTurn, request)
        turn.blocks.extend(response.turn.blocks)
        request.page_token = response.next_page_token
    return turn


def produced_blocks(turn: Turn) -> Sequence[Block]:
    """The blocks that the inference produced, of a turn in the view DELTA or FULL."""
    count = turn.block_count - turn.given_block_count
    return turn.blocks[-count:] if count else ()

"""Turns that come in pages of blocks, and the blocks of a turn that its inference produced."""

from collections.abc import Sequence

from turnwire.v1.session_service_pb2 import GetTurnRequest
from turnwire.v1.turn_pb2 import Block, Turn
from turnwire_client._transport import Transport


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

"""Pages of listings and of turns, as the contract bounds them."""

from turnwire.v1 import session_service_pb2, turn_pb2
from turnwire_server.domain.errors import InferenceNotFoundError, SessionNotFoundError, TurnNotFoundError
from turnwire_server.domain.inference import Inference
from turnwire_server.domain.turn import TurnView
from turnwire_server.stores.base import SessionStore
from turnwire_server.stores.page import TurnPage
from turnwire_server.wire.page_token import decode_page_token, encode_page_token, filters_of

PAGE_DEFAULT = 50
BLOCKS_MAX = 1000

# The cursor of a page of blocks is the index of the turn and the position of the block: a token for the newest turn
# goes on in the turn that it began with.
_OFFSET_BITS = 31


def page_size(asked: int) -> int:
    """Return how many items a page of a listing has; 0 means the default."""
    return asked or PAGE_DEFAULT


def page_token(rpc: str, filters: bytes, cursor: int | None) -> str:
    """Return the token of the next page, empty when there is none."""
    return "" if cursor is None else encode_page_token(rpc, filters, cursor)


def blocks_token(filters: bytes, page: TurnPage) -> str:
    """Return the token of the next blocks of a turn, empty when there are none."""
    return page_token("GetTurn", filters, None if page.next is None else page.turn.index << _OFFSET_BITS | page.next)


def decode_blocks_token(filters: bytes, token: str) -> tuple[int, int]:
    """Return the index of the turn and the position of the block that a token names. Errors: InvalidPageTokenError."""
    cursor = decode_page_token("GetTurn", filters, token)
    return cursor >> _OFFSET_BITS, cursor & (2**_OFFSET_BITS - 1)


def turn_page_token(inference_id: str, view: TurnView, page: TurnPage) -> str:
    """Return the token that GetTurn takes for the next blocks of an inference's turn."""
    request = session_service_pb2.GetTurnRequest(
        inference_id=inference_id, view=turn_pb2.TurnView.ValueType(view or TurnView.FULL)
    )
    return blocks_token(filters_of(request), page)


async def read_turn_of(  # a page of a view of a turn
    store: SessionStore, principal: str, inference: Inference, view: TurnView, offset: int, limit: int
) -> TurnPage:
    """Return a page of the turn of an inference.

    Errors: InferenceNotFoundError when its session was deleted meanwhile.
    """
    try:
        page = await store.get_turn(principal, inference.session_id, inference.turn_index, view, offset, limit)
    except (SessionNotFoundError, TurnNotFoundError):
        raise InferenceNotFoundError(inference_id=inference.inference_id) from None
    if page.turn.inference_id != inference.inference_id:  # deleted, and created again under the same name
        raise InferenceNotFoundError(inference_id=inference.inference_id)
    return page

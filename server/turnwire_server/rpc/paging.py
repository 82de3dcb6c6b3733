"""Pages of listings and of turns, as the contract bounds them."""

from turnwire.v1 import session_service_pb2, turn_pb2
from turnwire_server.domain.turn import TurnView
from turnwire_server.wire.page_token import encode_page_token, filters_of

PAGE_DEFAULT = 50
BLOCKS_MAX = 1000


def page_size(asked: int) -> int:
    """Return how many items a page of a listing has; 0 means the default."""
    return asked or PAGE_DEFAULT


def page_token(rpc: str, filters: bytes, cursor: int | None) -> str:
    """Return the token of the next page, empty when there is none."""
    return "" if cursor is None else encode_page_token(rpc, filters, cursor)


def turn_page_token(inference_id: str, view: TurnView, cursor: int | None) -> str:
    """Return the token that GetTurn takes for the next blocks of an inference's turn."""
    request = session_service_pb2.GetTurnRequest(
        inference_id=inference_id, view=turn_pb2.TurnView.ValueType(view or TurnView.FULL)
    )
    return page_token("GetTurn", filters_of(request), cursor)

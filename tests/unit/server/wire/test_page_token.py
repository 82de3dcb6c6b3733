import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnwire.v1.inference_service_pb2 import ListEventsRequest, ListInferencesRequest
from turnwire_server.domain.errors import InvalidPageTokenError
from turnwire_server.wire.page_token import decode_page_token, encode_page_token, filters_of

FILTERS = filters_of(ListInferencesRequest(session_id="s"))


@given(st.integers(-(2**63), 2**63 - 1))
def test_round_trip_within_the_limit_of_the_field(cursor: int) -> None:
    token = encode_page_token("ListInferences", FILTERS, cursor)
    assert len(token) <= 512
    assert decode_page_token("ListInferences", FILTERS, token) == cursor


def test_page_size_may_change_and_the_token_itself_does_not_count() -> None:
    assert filters_of(ListInferencesRequest(session_id="s", page_size=7, page_token="x")) == FILTERS


@pytest.mark.parametrize(
    ("rpc", "filters"),
    [
        ("ListEvents", FILTERS),
        ("ListInferences", filters_of(ListInferencesRequest(session_id="t"))),
        ("ListInferences", filters_of(ListInferencesRequest(session_id="s", states=[1]))),
        ("ListInferences", filters_of(ListEventsRequest(session_id="s", log="x"))),
    ],
)
def test_token_of_another_listing(rpc: str, filters: bytes) -> None:
    token = encode_page_token("ListInferences", FILTERS, 5)
    with pytest.raises(InvalidPageTokenError):
        decode_page_token(rpc, filters, token)


@pytest.mark.parametrize("token", ["", "x", "====", "ü", "AAAA", "A" * 32, "A" * 512, "not a token", "\x00"])
def test_what_is_no_token(token: str) -> None:
    with pytest.raises(InvalidPageTokenError):
        decode_page_token("ListInferences", FILTERS, token)


@given(st.integers(0, 31), st.sampled_from("ABCDwxyz0189-_"))
def test_token_that_was_changed(position: int, letter: str) -> None:
    token = encode_page_token("ListInferences", FILTERS, 5)
    changed = token[:position] + letter + token[position + 1 :]
    if changed == token:
        assert decode_page_token("ListInferences", FILTERS, changed) == 5
        return
    with pytest.raises(InvalidPageTokenError):
        decode_page_token("ListInferences", FILTERS, changed)


def test_token_is_safe_in_a_url() -> None:
    assert set(encode_page_token("ListInferences", FILTERS, -1)) <= set(
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_="
    )

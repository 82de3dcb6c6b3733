"""Bad input gets the documented error, with its details."""

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask

from support.rpc import Stubs, connect, refusal, script, start_request, status_of, violations
from turnwire.v1 import (
    debug_service_pb2,
    engine_service_pb2,
    inference_pb2,
    inference_service_pb2,
    session_pb2,
    session_service_pb2,
    tool_pb2,
    turn_pb2,
)
from turnwire.v1 import inference_service_pb2 as pb

UNKNOWN = "01990000-0000-7000-8000-000000000000"


@pytest.fixture
async def stubs(server_address: str) -> AsyncIterator[Stubs]:
    async with connect(server_address) as found:
        yield found


async def _call(stubs: Stubs, rpc: str, request: Any) -> bytes:
    """Call an rpc with a message, or with bytes that need not be one."""
    data = request if isinstance(request, bytes) else request.SerializeToString()
    return await stubs.channel.unary_unary(f"/turnwire.v1.{rpc}")(data)


async def _refused(stubs: Stubs, rpc: str, request: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await _call(stubs, rpc, request)
    return refused.value


S, I = "SessionService", "InferenceService"  # noqa: E741 - short on purpose: they head every line of the table
UNKNOWN_THINGS = [
    (f"{S}/GetSession", session_service_pb2.GetSessionRequest(session_id="nope"), "SESSION_NOT_FOUND"),
    (f"{S}/DeleteSession", session_service_pb2.DeleteSessionRequest(session_id="nope"), "SESSION_NOT_FOUND"),
    (f"{S}/ListTurns", session_service_pb2.ListTurnsRequest(session_id="nope"), "SESSION_NOT_FOUND"),
    (
        f"{S}/UpdateSession",
        session_service_pb2.UpdateSessionRequest(
            session=session_service_pb2.SessionUpdate(session_id="nope"), update_mask=FieldMask(paths=["display_name"])
        ),
        "SESSION_NOT_FOUND",
    ),
    (
        f"{S}/GetTurn",
        session_service_pb2.GetTurnRequest(at=session_service_pb2.TurnAt(session_id="nope")),
        "SESSION_NOT_FOUND",
    ),
    (f"{S}/GetTurn", session_service_pb2.GetTurnRequest(inference_id=UNKNOWN), "INFERENCE_NOT_FOUND"),
    (f"{I}/StartInference", start_request("nope"), "SESSION_NOT_FOUND"),
    (f"{I}/Wait", pb.WaitRequest(inference_id=UNKNOWN), "INFERENCE_NOT_FOUND"),
    (f"{I}/Cancel", pb.CancelRequest(inference_id=UNKNOWN), "INFERENCE_NOT_FOUND"),
    (f"{I}/Cancel", pb.CancelRequest(session_id="nope"), "SESSION_NOT_FOUND"),
    (f"{I}/GetInference", pb.GetInferenceRequest(inference_id=UNKNOWN), "INFERENCE_NOT_FOUND"),
    (f"{I}/ListInferences", pb.ListInferencesRequest(session_id="nope"), "SESSION_NOT_FOUND"),
    (f"{I}/ListEvents", pb.ListEventsRequest(session_id="nope"), "SESSION_NOT_FOUND"),
]


@pytest.mark.parametrize(("rpc", "request_", "reason"), UNKNOWN_THINGS, ids=[f"{r}-{w}" for r, _, w in UNKNOWN_THINGS])
async def test_unknown_ids(stubs: Stubs, rpc: str, request_: Any, reason: str) -> None:
    code, found, metadata = refusal(await _refused(stubs, rpc, request_))
    assert (code, found) == ("NOT_FOUND", reason)
    assert set(metadata.values()) & {"nope", UNKNOWN}


async def test_an_unknown_session_cannot_be_watched(stubs: Stubs) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await anext(
            aiter(stubs.inference.SubscribeEvents(pb.SubscribeEventsRequest(session_id="nope", live=pb.FromLive())))
        )
    assert refusal(refused.value) == ("NOT_FOUND", "SESSION_NOT_FOUND", {"session_id": "nope"})


ALL_RPCS = [
    (service.full_name.removeprefix("turnwire.v1."), method)
    for file in (inference_service_pb2, session_service_pb2, engine_service_pb2, debug_service_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
]


@pytest.mark.parametrize(("service", "method"), ALL_RPCS, ids=[m.name for _, m in ALL_RPCS])
async def test_malformed_bytes(stubs: Stubs, service: str, method: Any) -> None:
    path = f"/{method.containing_service.full_name}/{method.name}"
    call = stubs.channel.unary_stream(path) if method.server_streaming else stubs.channel.unary_unary(path)
    reply = call(b"\xff\xff\xff")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await (anext(aiter(reply)) if method.server_streaming else reply)
    assert refusal(refused.value) == (
        "INVALID_ARGUMENT",
        "MALFORMED_MESSAGE",
        {"message": method.input_type.full_name},
    )


BAD_FIELDS = [
    (
        f"{I}/StartInference",
        start_request("a", input=[turn_pb2.Block(id="x", user=turn_pb2.UserBlock(text="a"))] * 2),
        "input[1].id",
    ),
    (f"{I}/StartInference", pb.StartInferenceRequest(), "target"),
    (f"{I}/StartInference", start_request("no spaces allowed"), "session_id"),
    (f"{I}/StartInference", start_request("a", timeout=Duration(seconds=0)), "timeout"),
    (f"{I}/StartInference", start_request("a", idempotency_key="x" * 129), "idempotency_key"),
    (f"{I}/StartInference", start_request("a", conflict_policy=99), "conflict_policy"),
    (f"{I}/StartInference", start_request("a", "x" * (2 * 1024 * 1024 + 1)), "input[0].user.text"),
    (f"{I}/StartInference", start_request("a", metadata={"no version": "1"}), 'metadata["no version"]'),
    (f"{I}/StartInference", start_request("a", metadata={"a.b@v1": "not json"}), 'metadata["a.b@v1"]'),
    (
        f"{I}/StartInference",
        start_request("a", overrides=inference_pb2.Overrides(engine_options="[]")),
        "overrides.engine_options",
    ),
    (
        f"{I}/StartInference",
        start_request("a", input=[turn_pb2.Block(tool_use=tool_pb2.ToolUse(tool_call="c", result="{not json"))]),
        "input[0].tool_use.result",
    ),
    (
        f"{I}/StartInference",
        start_request("a", metadata={f"a.b{n}@v1": f'"{"x" * 60_000}"' for n in range(5)}),
        "metadata",
    ),
    (
        f"{S}/CreateSession",
        session_service_pb2.CreateSessionRequest(
            session=session_pb2.NewSession(metadata={str(n): f'"{"x" * 60_000}"' for n in range(5)})
        ),
        "session.metadata",
    ),
    (f"{I}/Wait", pb.WaitRequest(inference_id=UNKNOWN, timeout=Duration(seconds=-1)), "timeout"),
    (f"{I}/Cancel", pb.CancelRequest(), "target"),
    (f"{I}/ListEvents", pb.ListEventsRequest(session_id="a", page_size=10_001), "page_size"),
    (f"{S}/ListSessions", session_service_pb2.ListSessionsRequest(page_size=1001), "page_size"),
    (f"{S}/GetTurn", session_service_pb2.GetTurnRequest(), "target"),
    (
        f"{S}/CreateSession",
        session_service_pb2.CreateSessionRequest(session=session_pb2.NewSession(labels={"a": "x" * 257})),
        'session.labels["a"]',
    ),
    (
        f"{S}/UpdateSession",
        session_service_pb2.UpdateSessionRequest(
            session=session_service_pb2.SessionUpdate(session_id="a"), update_mask=FieldMask(paths=["revision"])
        ),
        "update_mask.paths[0]",
    ),
]


@pytest.mark.parametrize(("rpc", "request_", "field"), BAD_FIELDS, ids=[f"{r}-{f}" for r, _, f in BAD_FIELDS])
async def test_fields_that_break_a_rule(stubs: Stubs, rpc: str, request_: Any, field: str) -> None:
    refused = await _refused(stubs, rpc, request_)
    assert refusal(refused)[:2] == ("INVALID_ARGUMENT", "INVALID_FIELD")
    assert field in violations(refused)


async def test_a_request_that_is_too_large(stubs: Stubs) -> None:
    request = start_request("a")
    for _ in range(3):
        request.input.add(user=turn_pb2.UserBlock(text="x" * 1_900_000))
    refused = await _refused(stubs, f"{I}/StartInference", request)
    assert refusal(refused) == (
        "RESOURCE_EXHAUSTED",
        "REQUEST_TOO_LARGE",
        {"request_bytes": str(request.ByteSize()), "request_bytes_max": str(4 * 1024 * 1024)},
    )


async def test_a_request_that_the_transport_refuses(stubs: Stubs) -> None:
    refused = await _refused(stubs, f"{I}/StartInference", b"x" * (17 * 1024 * 1024))
    assert refused.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_an_unknown_block_kind(stubs: Stubs) -> None:
    request = start_request(await stubs.create_session())
    request.input.add(id="of a newer contract")
    refused = await _refused(stubs, f"{I}/StartInference", request)
    assert refusal(refused) == ("INVALID_ARGUMENT", "UNKNOWN_BLOCK_KIND", {"block": "1"})


async def test_an_unknown_profile(stubs: Stubs) -> None:
    request = start_request(await stubs.create_session())
    request.profile = "nope"
    expected = ("NOT_FOUND", "PROFILE_NOT_FOUND", {"profile": "nope"})
    assert refusal(await _refused(stubs, f"{I}/StartInference", request)) == expected
    create = session_service_pb2.CreateSessionRequest(session=session_pb2.NewSession(profile="nope"))
    assert refusal(await _refused(stubs, f"{S}/CreateSession", create)) == expected


async def test_an_empty_seed(stubs: Stubs) -> None:
    session_id = await stubs.create_session()
    refused = await _refused(stubs, f"{I}/StartInference", start_request(session_id, ""))
    assert refusal(refused) == ("FAILED_PRECONDITION", "EMPTY_TURN", {"session_id": session_id})
    inferences = await stubs.inference.ListInferences(pb.ListInferencesRequest(session_id=session_id))
    assert not inferences.inferences


async def test_an_unknown_parent(stubs: Stubs) -> None:
    session_id = await stubs.create_session()
    refused = await _refused(stubs, f"{I}/StartInference", start_request(session_id, parent=7))
    assert refusal(refused) == ("NOT_FOUND", "TURN_NOT_FOUND", {"session_id": session_id, "index": "7"})


async def test_a_page_token_of_another_listing(stubs: Stubs) -> None:
    session_id = await stubs.create_session()
    for _ in range(2):
        await stubs.finish((await stubs.start(session_id)).inference_id)
    page = await stubs.inference.ListInferences(pb.ListInferencesRequest(session_id=session_id, page_size=1))
    assert page.next_page_token
    for request in (
        pb.ListInferencesRequest(session_id=session_id, states=[2], page_token=page.next_page_token),
        pb.ListInferencesRequest(session_id=session_id, page_token="nonsense"),
    ):
        refused = await _refused(stubs, f"{I}/ListInferences", request)
        assert refusal(refused) == ("INVALID_ARGUMENT", "INVALID_PAGE_TOKEN", {})
    refused = await _refused(
        stubs, f"{I}/ListEvents", pb.ListEventsRequest(session_id=session_id, page_token=page.next_page_token)
    )
    assert refusal(refused)[1] == "INVALID_PAGE_TOKEN"


async def test_a_cursor_beyond_the_head_of_a_listing(stubs: Stubs) -> None:
    session_id = await stubs.create_session()
    refused = await _refused(stubs, f"{I}/ListEvents", pb.ListEventsRequest(session_id=session_id, after_sequence=9))
    assert refusal(refused) == (
        "OUT_OF_RANGE",
        "CURSOR_AHEAD",
        {"session_id": session_id, "after_sequence": "9", "head_sequence": "0"},
    )


async def test_cursors_beyond_every_log(stubs: Stubs) -> None:
    session_id = await stubs.create_session()
    for cursor in (2**63, 2**64 - 1):
        request = pb.ListEventsRequest(session_id=session_id, after_sequence=cursor)
        assert refusal(await _refused(stubs, f"{I}/ListEvents", request))[1] == "CURSOR_AHEAD"
        subscribe = pb.SubscribeEventsRequest(session_id=session_id, after_sequence=cursor)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await anext(aiter(stubs.inference.SubscribeEvents(subscribe)))
        assert refusal(refused.value)[1] == "CURSOR_AHEAD"


async def test_a_deadline_that_passes_inside_wait_is_an_answer(stubs: Stubs) -> None:
    session_id = await stubs.create_session()
    started = await stubs.start(session_id, script=script({"hang": {}}))
    for deadline in (0.9, 0.4):
        response = await stubs.inference.Wait(pb.WaitRequest(inference_id=started.inference_id), timeout=deadline)
        assert response.inference.state in {1, 2}
    await stubs.inference.Cancel(pb.CancelRequest(session_id=session_id))


async def test_nothing_to_cancel(stubs: Stubs) -> None:
    session_id = await stubs.create_session()
    refused = await _refused(stubs, f"{I}/Cancel", pb.CancelRequest(session_id=session_id))
    assert refusal(refused) == ("FAILED_PRECONDITION", "NO_ACTIVE_INFERENCE", {"session_id": session_id})


async def test_a_session_id_that_is_taken(stubs: Stubs) -> None:
    session_id = await stubs.create_session()
    create = session_service_pb2.CreateSessionRequest(session=session_pb2.NewSession(session_id=session_id))
    assert refusal(await _refused(stubs, f"{S}/CreateSession", create)) == (
        "ALREADY_EXISTS",
        "SESSION_ALREADY_EXISTS",
        {"session_id": session_id},
    )


async def test_a_revision_that_has_passed(stubs: Stubs) -> None:
    session_id = await stubs.create_session()
    update = session_service_pb2.UpdateSessionRequest(
        session=session_service_pb2.SessionUpdate(session_id=session_id, display_name="a"),
        update_mask=FieldMask(paths=["display_name"]),
        revision=1,
    )
    await _call(stubs, f"{S}/UpdateSession", update)
    refused = await _refused(stubs, f"{S}/UpdateSession", update)
    assert refusal(refused) == ("ABORTED", "REVISION_MISMATCH", {"session_id": session_id, "revision": "2"})


async def test_a_turn_that_is_not_there(stubs: Stubs) -> None:
    session_id = await stubs.create_session()
    at = session_service_pb2.TurnAt(session_id=session_id, index=3)
    refused = await _refused(stubs, f"{S}/GetTurn", session_service_pb2.GetTurnRequest(at=at))
    assert refusal(refused) == ("NOT_FOUND", "TURN_NOT_FOUND", {"session_id": session_id, "index": "3"})


async def test_many_violations_still_fit_in_the_trailers(stubs: Stubs) -> None:
    request = start_request("a")
    for _ in range(500):
        request.input.add(tool_call=tool_pb2.ToolCall())
    refused = await _refused(stubs, f"{I}/StartInference", request)
    assert len(violations(refused)) == 8
    assert status_of(refused).message


async def test_what_turns_carry_on_is_bounded(stubs: Stubs) -> None:
    session_id = await stubs.create_session()
    for number in range(5):
        request = start_request(session_id, data={f"a.b{number}@v1": f'"{"x" * 60_000}"'})
        if number < 4:
            await stubs.finish((await stubs.inference.StartInference(request)).inference.inference_id)
    refused = await _refused(stubs, f"{I}/StartInference", request)
    assert violations(refused) == {"data": "map_bytes_max"}


async def test_a_listing_never_passes_what_clients_receive(stubs: Stubs) -> None:
    wide = {str(n): f'"{"x" * 60_000}"' for n in range(4)}
    label = {"test": "wide"}
    for _ in range(20):
        new = session_pb2.NewSession(labels=label, metadata=wide)
        await stubs.session.CreateSession(session_service_pb2.CreateSessionRequest(session=new))
    found, token, pages = 0, "", 0
    while token or not pages:
        listing = session_service_pb2.ListSessionsRequest(labels=label, page_size=1000, page_token=token)
        page = await stubs.session.ListSessions(listing)
        assert page.ByteSize() < 2 * 1024 * 1024
        found, token, pages = found + len(page.sessions), page.next_page_token, pages + 1
    assert (found, pages > 1) == (20, True)

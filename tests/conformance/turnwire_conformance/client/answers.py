"""What each unary rpc answers, when nothing goes wrong."""

from collections.abc import Callable, Mapping
from typing import Any

from google.protobuf.message import Message

from turnwire.testing.v1.client_conformance_pb2 import ClientStatus
from turnwire.v1 import inference_service_pb2 as inferences
from turnwire.v1 import session_service_pb2 as sessions
from turnwire.v1.session_pb2 import Session
from turnwire.v1.turn_pb2 import Turn, TurnState, TurnView
from turnwire_conformance.client.world import LISTED, LOG, PAGE_LENGTH, SESSION, BadTokenError, World, page

BLOCKS_PER_PAGE = 1
EVENTS_PER_PAGE = 4


class Refusal(Exception):  # noqa: N818 - what a server does, and no error of it
    """The contract refuses a request with this status."""

    def __init__(self, code: str, reason: str, **metadata: object) -> None:
        super().__init__(reason)
        told = {key: str(value) for key, value in metadata.items()}
        self.status = ClientStatus(code=code, reason=reason, metadata=told)


def check_cursor(world: World, after: int, log: str) -> None:
    """Raises Refusal for a cursor that does not fit the log."""
    if log and log != LOG:
        raise Refusal("OUT_OF_RANGE", "LOG_REPLACED", session_id=SESSION, log=LOG)
    if after > world.head:
        raise Refusal(
            "OUT_OF_RANGE", "CURSOR_AHEAD", session_id=SESSION, after_sequence=after, head_sequence=world.head
        )


def _start(world: World, request: inferences.StartInferenceRequest) -> Message:
    content = inferences.StartInferenceRequest()
    content.CopyFrom(request)
    for name in ("idempotency_key", "timeout"):
        content.ClearField(name)
    encoded = content.SerializeToString(deterministic=True)
    before = world.starts.get(request.idempotency_key)
    if before is not None and before != encoded:
        raise Refusal("ALREADY_EXISTS", "IDEMPOTENCY_KEY_REUSED", rpc="StartInference")
    if request.idempotency_key:
        world.starts[request.idempotency_key] = encoded
    return inferences.StartInferenceResponse(inference=world.inference(), created=before is None)


def _wait(world: World, request: inferences.WaitRequest) -> Message:
    response = inferences.WaitResponse(inference=world.inference())
    if request.turn_view and world.is_finished():
        asked = sessions.GetTurnRequest(inference_id=request.inference_id, view=request.turn_view)
        response.turn.CopyFrom(_shown(world, asked.view))
        blocks, response.turn_page_token = page(list(response.turn.blocks), asked, BLOCKS_PER_PAGE)
        del response.turn.blocks[:]
        response.turn.blocks.extend(blocks)
    return response


def _get_turn(world: World, request: sessions.GetTurnRequest) -> Message:
    turn = _shown(world, request.view)
    blocks, token = page(list(turn.blocks), request, BLOCKS_PER_PAGE)
    del turn.blocks[:]
    turn.blocks.extend(blocks)
    return sessions.GetTurnResponse(turn=turn, next_page_token=token)


def _shown(world: World, view: TurnView.ValueType) -> Turn:
    turn = world.turn()
    if view == TurnView.TURN_VIEW_BASIC:
        del turn.blocks[:]
    return turn


def _cancel(world: World, _request: Message) -> Message:
    return inferences.CancelResponse(inference=world.inference())


def _get_inference(world: World, _request: Message) -> Message:
    return inferences.GetInferenceResponse(inference=world.inference())


def _submit(world: World, request: inferences.SubmitToolResultsRequest) -> Message:
    answered = {outcome.tool_call for outcome in request.outcomes}
    left = [call for call in world.pending() if call not in answered]
    return inferences.SubmitToolResultsResponse(inference=world.inference(), pending_tool_calls=left)


def _list_events(world: World, request: inferences.ListEventsRequest) -> Message:
    check_cursor(world, request.after_sequence, request.log)
    events, token = page(world.events[request.after_sequence :], request, EVENTS_PER_PAGE)
    return inferences.ListEventsResponse(
        events=events,
        after_sequence=events[0].sequence - 1 if events else request.after_sequence,
        through_sequence=events[-1].sequence if events else request.after_sequence,
        next_page_token=token,
        log=LOG,
        head_sequence=world.head,
        earliest_sequence=1,
    )


def _list_inferences(world: World, request: inferences.ListInferencesRequest) -> Message:
    listed, token = page([world.inference(number) for number in range(1, LISTED + 1)], request, PAGE_LENGTH)
    return inferences.ListInferencesResponse(inferences=listed, next_page_token=token)


def _session(number: int = 1) -> Session:
    return Session(session_id=SESSION if number == 1 else f"{SESSION}-{number}", log=LOG)


def _list_sessions(_world: World, request: sessions.ListSessionsRequest) -> Message:
    listed, token = page([_session(number) for number in range(1, LISTED + 1)], request, PAGE_LENGTH)
    return sessions.ListSessionsResponse(sessions=listed, next_page_token=token)


def _list_turns(_world: World, request: sessions.ListTurnsRequest) -> Message:
    turns = [
        Turn(session_id=SESSION, index=number - 1, id=f"turn-{number}", state=TurnState.TURN_STATE_CLOSED)
        for number in range(1, LISTED + 1)
    ]
    listed, token = page(turns, request, PAGE_LENGTH)
    return sessions.ListTurnsResponse(turns=listed, next_page_token=token)


def _get_session(_world: World, _request: Message) -> Message:
    return sessions.GetSessionResponse(session=_session())


def _create_session(_world: World, _request: Message) -> Message:
    return sessions.CreateSessionResponse(session=_session(), created=True)


def _checked(answer: Callable[[World, Any], Message]) -> Callable[[World, Any], Message]:
    def answer_or_refuse(world: World, request: Any) -> Message:
        try:
            return answer(world, request)
        except BadTokenError:
            raise Refusal("INVALID_ARGUMENT", "INVALID_PAGE_TOKEN") from None

    return answer_or_refuse


ANSWERS: Mapping[str, Callable[[World, Any], Message]] = {
    "StartInference": _start,
    "Wait": _wait,
    "Cancel": _cancel,
    "GetInference": _get_inference,
    "SubmitToolResults": _submit,
    "ListEvents": _checked(_list_events),
    "ListInferences": _checked(_list_inferences),
    "GetTurn": _checked(_get_turn),
    "ListSessions": _checked(_list_sessions),
    "ListTurns": _checked(_list_turns),
    "GetSession": _get_session,
    "CreateSession": _create_session,
}

"""Tool calls that wait for the client: which they are, how they are answered, and a loop that answers them."""

import asyncio
import inspect
import json
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeAlias, TypeVar, cast

from turnwire.v1.event_pb2 import Event, ToolsRequired
from turnwire.v1.inference_pb2 import Inference, InferenceState
from turnwire.v1.inference_service_pb2 import ListEventsRequest
from turnwire.v1.session_service_pb2 import GetTurnRequest
from turnwire.v1.tool_pb2 import ToolApproval, ToolCall, ToolDenial, ToolError, ToolOutcome
from turnwire.v1.turn_pb2 import TurnView
from turnwire_client._errors import InferenceNotWaitingError, ProtocolError, ToolCallNotPendingError
from turnwire_client._pages import complete_turn, produced_blocks
from turnwire_client._transport import Transport

if TYPE_CHECKING:
    from turnwire_client._handle import InferenceHandle, Result

V = TypeVar("V")

log = logging.getLogger("turnwire_client")

# A function of the client's that is a tool: it is given the arguments by name. It may be async.
ToolFunction: TypeAlias = Callable[..., object]

# Decides about a call: True, or an approval that may have other arguments; False, or a denial that may have a reason.
Approve: TypeAlias = Callable[[ToolCall], Awaitable[bool | ToolApproval | ToolDenial]]

# How far back the newest tools.required is looked for at first: few events follow it, two per answer.
TAIL_LENGTH = 256


@dataclass(frozen=True, slots=True)
class Required:
    """What an inference that is WAITING_FOR_TOOLS waits for. False when that is nothing.

    `calls` wait for a result of the client, `approvals` for somebody's decision; they have their names and arguments.
    When `deadline_time` comes, what has no answer gets the ToolError `timeout`; None: it may take for ever. `sequence`
    is that of the event that told of them.
    """

    calls: tuple[ToolCall, ...] = ()
    approvals: tuple[ToolCall, ...] = ()
    deadline_time: datetime | None = None
    sequence: int = 0

    def __bool__(self) -> bool:
        return bool(self.calls or self.approvals)


async def read_required(transport: Transport, inference: Inference) -> Required:
    """What the inference waits for; nothing if it does not, or has gone on since.

    Raises RequestError; ProtocolError if no event tells what it waits for.
    """
    if inference.state != InferenceState.INFERENCE_STATE_WAITING_FOR_TOOLS:
        return Required()
    event = await _read_tools_required(transport, inference)
    # The turn has what the event leaves out: arguments, and which calls were answered since.
    request = GetTurnRequest(inference_id=inference.inference_id, view=TurnView.TURN_VIEW_DELTA)
    response = await transport.call(transport.sessions.GetTurn, request)
    request.page_token = response.next_page_token
    open_calls: dict[str, ToolCall] = {}
    for block in produced_blocks(await complete_turn(transport, request, response.turn)):
        if block.HasField("tool_call"):
            open_calls[block.tool_call.id] = block.tool_call
        elif block.HasField("tool_use"):
            open_calls.pop(block.tool_use.tool_call, None)
    told = event.tools_required
    return Required(
        tuple(_replaced(open_calls[call.id], call.args) for call in told.calls if call.id in open_calls),
        tuple(open_calls[call.id] for call in told.approvals if call.id in open_calls),
        _deadline_of(told),
        event.sequence,
    )


def _replaced(call: ToolCall, args: str) -> ToolCall:
    """The call with the arguments that its approval gave it, if it did."""
    return ToolCall(id=call.id, name=call.name, args=args or call.args)


async def _read_tools_required(transport: Transport, inference: Inference) -> Event:
    """The newest tools.required of an inference, looked for from the end of its events to their beginning."""
    first, reach = inference.first_sequence - 1, TAIL_LENGTH
    while True:
        after = max(first, inference.last_sequence - reach)
        found = await _newest_tools_required(transport, inference, after)
        if found is not None:
            return found
        if after <= first:
            raise ProtocolError(f"inference {inference.inference_id} waits for tools, and no event says for which")
        reach *= 8


async def _newest_tools_required(transport: Transport, inference: Inference, after: int) -> Event | None:
    newest: Event | None = None
    request = ListEventsRequest(
        session_id=inference.session_id, inference_id=inference.inference_id, after_sequence=after
    )
    while True:
        response = await transport.call(transport.inferences.ListEvents, request)
        newest = next((event for event in reversed(response.events) if event.HasField("tools_required")), newest)
        request.page_token = response.next_page_token
        if not request.page_token or response.through_sequence >= inference.last_sequence:
            return newest


def _deadline_of(told: ToolsRequired) -> datetime | None:
    return told.deadline_time.ToDatetime(UTC) if told.HasField("deadline_time") else None


def to_outcomes(
    results: Mapping[str, object] | None,
    errors: Mapping[str, str | ToolError] | None,
    approvals: Iterable[str] | Mapping[str, object],
    denials: Iterable[str] | Mapping[str, str],
) -> list[ToolOutcome]:
    """Answers to tool calls, from what InferenceHandle.submit_tool_results takes.

    Raises ValueError or TypeError for a value that is not JSON.
    """
    told = {
        call: ToolError(message=error, code="failed") if isinstance(error, str) else error
        for call, error in (errors or {}).items()
    }
    approved: Mapping[str, object] = _by_id(approvals, None)
    args = {call: "" if value is None else to_json(value) for call, value in approved.items()}
    return [
        *(ToolOutcome(tool_call=call, result=to_json(result)) for call, result in (results or {}).items()),
        *(ToolOutcome(tool_call=call, error=error) for call, error in told.items()),
        *(ToolOutcome(tool_call=call, approved=ToolApproval(args=text)) for call, text in args.items()),
        *(
            ToolOutcome(tool_call=call, denied=ToolDenial(reason=reason))
            for call, reason in _by_id(denials, "").items()
        ),
    ]


def _by_id(named: Iterable[str] | Mapping[str, V], otherwise: V) -> Mapping[str, V]:
    if isinstance(named, str):  # one id, not its letters
        return {named: otherwise}
    return cast("Mapping[str, V]", named) if isinstance(named, Mapping) else dict.fromkeys(named, otherwise)


def to_json(value: object) -> str:
    """A value as JSON text.

    Raises ValueError or TypeError if it has none.
    """
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


@dataclass(slots=True)
class ToolLoop:
    """Answers what an inference waits for, with functions of the client's; see InferenceHandle.run_tools."""

    handle: "InferenceHandle"
    functions: Mapping[str, ToolFunction]
    approve: Approve | None
    # What was answered of the event told last.
    _sequence: int = 0
    _answered: set[str] = field(default_factory=set[str])

    async def answer(self, result: "Result") -> bool:
        """Answers what it can of what a result requires, side by side. False if there is nothing that it can."""
        required = result.required
        if required.sequence != self._sequence:
            self._sequence = required.sequence
            self._answered.clear()
        answers = [self._run(call) for call in self._new(required.calls) if call.name in self.functions]
        approvals = self._new(required.approvals)
        if self.approve is not None and approvals:
            answers.append(self._decide(self.approve, approvals))
        # All of them end before a failure is raised: none goes on behind the caller's back.
        for failure in await asyncio.gather(*answers, return_exceptions=True):
            if isinstance(failure, BaseException):
                raise failure
        return bool(answers)

    def _new(self, calls: Iterable[ToolCall]) -> list[ToolCall]:
        return [call for call in calls if call.id not in self._answered]

    async def _run(self, call: ToolCall) -> None:
        outcome = await run_function(self.functions[call.name], call.name, call.args)
        if isinstance(outcome, ToolError):
            await self._submit([ToolOutcome(tool_call=call.id, error=outcome)])
        else:
            await self._submit([ToolOutcome(tool_call=call.id, result=outcome)])

    async def _decide(self, approve: Approve, calls: Iterable[ToolCall]) -> None:
        """Asks one thing after the other, and submits all decisions together: then one event tells what is left."""
        outcomes: list[ToolOutcome] = []
        for call in calls:
            decision = await approve(call)
            if isinstance(decision, bool):
                decision = ToolApproval() if decision else ToolDenial()
            if isinstance(decision, ToolDenial):
                outcomes.append(ToolOutcome(tool_call=call.id, denied=decision))
            else:
                outcomes.append(ToolOutcome(tool_call=call.id, approved=decision))
        await self._submit(outcomes)

    async def _submit(self, outcomes: list[ToolOutcome]) -> None:
        self._answered.update(outcome.tool_call for outcome in outcomes)
        await submit_pending(self.handle, outcomes)


async def submit_pending(handle: "InferenceHandle", outcomes: list[ToolOutcome]) -> None:
    """Submits those of the answers that are still waited for: somebody else, or a deadline, may have been quicker."""
    while outcomes:  # each time without those that were refused
        try:
            await handle.submit_tool_results(outcomes)
        except ToolCallNotPendingError as refused:
            settled = refused.metadata["tool_calls"].split(",")
            left = [outcome for outcome in outcomes if outcome.tool_call not in settled]
            if len(left) == len(outcomes):
                raise
            outcomes = left
        except InferenceNotWaitingError:
            return
        else:
            return


async def run_function(function: ToolFunction, name: str, args: str) -> str | ToolError:
    """Calls a function with the arguments of a tool call; returns its result as JSON text, or the failure."""
    try:
        values = json.loads(args or "{}")
        inspect.signature(function).bind(**values)
    except (TypeError, ValueError) as error:
        return ToolError(message=f"invalid arguments: {error}", code="invalid_args")
    try:
        result = function(**values)
        if inspect.isawaitable(result):
            result = await result
        return result if isinstance(result, ToolError) else to_json(result)
    except Exception as error:
        log.exception("the tool %s crashed", name)
        return ToolError(message=f"the tool crashed ({type(error).__name__})", code="crashed")

"""One inference in the caller's hand: its events, its result, its tool calls, its cancel."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Self

from turnwire.v1.inference_pb2 import Inference, InferenceState, Usage, WaitUntil
from turnwire.v1.inference_service_pb2 import (
    CancelRequest,
    GetInferenceRequest,
    SubmitToolResultsRequest,
    SubmitToolResultsResponse,
    WaitRequest,
    WaitResponse,
)
from turnwire.v1.session_service_pb2 import GetTurnRequest
from turnwire.v1.tool_pb2 import ToolError, ToolOutcome
from turnwire.v1.turn_pb2 import Block, Turn
from turnwire_client._backoff import Patience
from turnwire_client._errors import InferenceCancelledError, RequestError
from turnwire_client._pages import VIEWS, View, complete_turn, produced_blocks
from turnwire_client._requests import mint_key, to_duration
from turnwire_client._status import from_error, is_transient
from turnwire_client._tools import Approve, Required, ToolFunction, ToolLoop, read_required, to_outcomes
from turnwire_client._transport import Transport
from turnwire_client._watch import EventStream, IfCompacted, Start

# What one Wait holds, and what it may take beside that.
HOLD_SECONDS = 20.0
HOLD_GRACE_SECONDS = 2.0

# A wait that comes back sooner than this, and not for what was waited for, is followed by a pause of this length.
EARLY_SECONDS = 0.5

TERMINAL = frozenset(
    {
        InferenceState.INFERENCE_STATE_SUCCEEDED,
        InferenceState.INFERENCE_STATE_FAILED,
        InferenceState.INFERENCE_STATE_CANCELLED,
    }
)
WAITS_FOR_CLIENT = frozenset({InferenceState.INFERENCE_STATE_WAITING_FOR_TOOLS, InferenceState.INFERENCE_STATE_PAUSED})

# Marks a block that tells the model what is wrong with its output: the answer begins anew after it.
REPAIR_KEY = "turnwire.output_repair@v1"


@dataclass(frozen=True, slots=True)
class Result:
    """What an inference came to. `turn` is None while there is none, or when the inference ended before it ran.

    `required` is what it waits for when it is WAITING_FOR_TOOLS; nothing if somebody has answered meanwhile.
    """

    inference: Inference
    turn: Turn | None
    required: Required = Required()

    @property
    def state(self) -> InferenceState.ValueType:
        """Where the inference is; terminal, unless the client has to act."""
        return self.inference.state

    @property
    def usage(self) -> Usage:
        """The tokens used, summed over all engine calls."""
        return self.inference.usage

    @property
    def text(self) -> str:
        """The answer: the text that the inference produced, joined. May be partial.

        What came before the last tool's answer, or was sent back because it missed the output schema, is left out.
        """
        pieces: list[str] = []
        for block in produced_blocks(self.turn) if self.turn is not None else ():
            if block.HasField("llm_text"):
                pieces.append(block.llm_text.text)
            elif block.HasField("tool_use") or _is_repair(block):
                pieces.clear()
        return "".join(pieces)

    def raise_for_state(self) -> Self:
        """Raises InferenceFailedError (a subclass by its reason) or InferenceCancelledError; else returns itself."""
        if self.state == InferenceState.INFERENCE_STATE_FAILED:
            raise from_error(self.inference.error, self)
        if self.state == InferenceState.INFERENCE_STATE_CANCELLED:
            raise InferenceCancelledError(self.inference.cancel_reason, self)
        return self


class InferenceHandle:
    """An inference, by its ids. It costs nothing to make and to drop; the inference goes on by itself.

    `created` is False when the start repeated an earlier one, None for a handle that was made from ids. `inference` is
    what the server last said about it, None before it said anything.
    """

    def __init__(
        self,
        transport: Transport,
        inference_id: str,
        session_id: str,
        *,
        inference: Inference | None = None,
        created: bool | None = None,
    ) -> None:
        self._transport = transport
        self.inference_id = inference_id
        self.session_id = session_id
        self.inference = inference
        self.created = created

    def events(
        self,
        after_sequence: int | None = None,
        log: str = "",
        *,
        snapshot: bool = False,
        if_compacted: IfCompacted = "raise",
        cancel_after_disconnect: float | timedelta | None = None,
    ) -> EventStream:
        """The events of the inference, up to its terminal one, each exactly once. See EventStream for what it raises.

        Starts with the inference's first event, or after a sequence: then `log`, the token that came with it, should be
        given too; EventStream.cursor has both. Or, with `snapshot`, with what everything so far amounts to. The other
        options are those of Client.watch.

        Raises ValueError for a sequence, or a time, that cannot be one, and for a sequence together with `snapshot`.
        """
        if snapshot and after_sequence is not None:
            raise ValueError("either a sequence to begin after, or a snapshot")
        start: Start = "beginning"
        if snapshot:
            start = "snapshot"
        elif after_sequence is not None:
            start = after_sequence
        elif self.inference is not None and self.inference.first_sequence:
            start = self.inference.first_sequence - 1
        return EventStream(
            self._transport,
            self.session_id,
            self.inference_id,
            start,
            "inference_end",
            log,
            if_compacted=if_compacted,
            cancel_after_disconnect=cancel_after_disconnect,
            reached=self.inference is not None,
        )

    async def result(
        self,
        timeout: float | None = None,
        *,
        view: View = "delta",
        until_end: bool = False,
        raise_on_failure: bool = True,
    ) -> Result:
        """Waits for the end and returns the result, with the whole turn in the view.

        Returns also when the client has to act, unless `until_end`: WAITING_FOR_TOOLS, when `Result.required` says for
        what, or PAUSED by step mode, which Client.release_pause ends. Goes on through
        restarts of the server for as long as `Policy.resume` allows, once the server has answered at all.

        Raises what `Result.raise_for_state` does, unless `raise_on_failure` is False; TimeoutError after `timeout`
        seconds, while the inference goes on; RequestError; ValueError for a timeout that is not a number of seconds.
        """
        if timeout is not None:
            to_duration(timeout)
        response = await self._wait(timeout, view, until_end=until_end)
        required = await read_required(self._transport, response.inference)
        result = Result(response.inference, await self._whole_turn(response, view), required)
        return result.raise_for_state() if raise_on_failure else result

    async def run_tools(
        self,
        functions: Mapping[str, ToolFunction],
        *,
        approve: Approve | None = None,
        view: View = "delta",
        raise_on_failure: bool = True,
    ) -> Result:
        """Answers the tool calls that the inference waits for, up to its end, and returns its result.

        `functions` are the tools of the client by name. Each is called with the arguments by name, those of one round
        side by side, and may be async; what it returns is sent as JSON, a ToolError as a failure. One that raises has
        crashed: the model is told so, and the logger `turnwire_client` why. `approve` is asked about one call after the
        other, and returns True or a ToolApproval, False or a ToolDenial.

        Goes on through restarts of the server. After one of this program, call it again: what was answered stays
        answered, and what was under way is executed again. Returns before the end when what is left is not for it: a
        tool that is not among `functions`, an approval without `approve`, a pause.

        Raises what `result` does.
        """
        loop = ToolLoop(self, functions, approve)
        while True:  # as often as the inference waits, which its iterations_max bounds
            result = await self.result(view=view, raise_on_failure=raise_on_failure)
            if result.state != InferenceState.INFERENCE_STATE_WAITING_FOR_TOOLS:
                return result
            if result.required and not await loop.answer(result):
                return result

    async def required(self) -> Required:
        """What the inference waits for now: the pending tool calls. False, as a truth value, if there are none.

        Raises RequestError.
        """
        return await read_required(self._transport, await self.get())

    async def submit_tool_results(
        self,
        outcomes: Iterable[ToolOutcome] = (),
        *,
        results: Mapping[str, object] | None = None,
        errors: Mapping[str, str | ToolError] | None = None,
        approvals: Iterable[str] | Mapping[str, object] = (),
        denials: Iterable[str] | Mapping[str, str] = (),
        idempotency_key: str | None = None,
    ) -> SubmitToolResultsResponse:
        """Answers tool calls, by their ids; some may stay open. Returns the inference, and which calls are pending.

        `results` are sent as JSON, `errors` are for the model as well. `approvals` are ids, or a mapping from ids to
        the arguments to use, None for the model's. `denials` are ids, or a mapping from ids to reasons. `outcomes` are
        answers as the contract has them. All are taken, or none is. Sent again with the same key when no answer comes.

        Raises ToolCallNotPendingError, InferenceNotWaitingError and other RequestErrors; ValueError and TypeError for
        what is not JSON.
        """
        answers = [*outcomes, *to_outcomes(results, errors, approvals, denials)]
        request = SubmitToolResultsRequest(
            inference_id=self.inference_id, outcomes=answers, idempotency_key=idempotency_key or mint_key()
        )
        response = await self._transport.call_repeatable(self._transport.inferences.SubmitToolResults, request)
        self._heard(response.inference)
        return response

    async def cancel(self, reason: str = "") -> Inference:
        """Requests that the inference stops, and returns it as it is then; it may still be RUNNING.

        Idempotent, also after the end. Raises RequestError.
        """
        request = CancelRequest(inference_id=self.inference_id, reason=reason)
        response = await self._transport.call_repeatable(self._transport.inferences.Cancel, request)
        return self._heard(response.inference)

    async def get(self) -> Inference:
        """The inference as it is now. Raises RequestError."""
        request = GetInferenceRequest(inference_id=self.inference_id)
        response = await self._transport.call(self._transport.inferences.GetInference, request)
        return self._heard(response.inference)

    async def _wait(self, timeout: float | None, view: View, *, until_end: bool) -> WaitResponse:
        clock, policy = self._transport.clock, self._transport.policy
        patience = Patience(policy.opening if self.inference is None else policy.resume, clock)
        end = None if timeout is None else clock.monotonic() + timeout
        until = WaitUntil.WAIT_UNTIL_END if until_end else WaitUntil.WAIT_UNTIL_CLIENT_ACTION
        enough = TERMINAL if until_end else TERMINAL | WAITS_FOR_CLIENT
        if self.inference is None:
            patience.asked()
        while True:
            # The first time only a look, so that an answer tells soon whether there is a server at all.
            hold = 0.0 if self.inference is None else HOLD_SECONDS
            if end is not None:
                hold = max(0.0, min(hold, end - clock.monotonic()))
            request = WaitRequest(
                inference_id=self.inference_id, timeout=to_duration(hold), until=until, turn_view=VIEWS[view]
            )
            asked = clock.monotonic()
            try:
                response = await self._transport.call(
                    self._transport.inferences.Wait, request, timeout_seconds=hold + HOLD_GRACE_SECONDS
                )
            except RequestError as failure:
                if not is_transient(failure) or not await patience.wait(failure):
                    raise
            else:
                patience = Patience(policy.resume, clock)
                if self._heard(response.inference).state in enough:
                    return response
                if clock.monotonic() - asked < min(hold, EARLY_SECONDS):
                    # The server did not hold the wait: it has as many as it can, or it drains.
                    await clock.sleep(EARLY_SECONDS)
            if end is not None and clock.monotonic() >= end:
                raise TimeoutError(f"inference {self.inference_id} has not ended within {timeout} s")

    async def _whole_turn(self, response: WaitResponse, view: View) -> Turn | None:
        if not response.HasField("turn"):
            return None
        turn = response.turn
        request = GetTurnRequest(inference_id=self.inference_id, view=VIEWS[view], page_token=response.turn_page_token)
        return await complete_turn(self._transport, request, turn)

    def _heard(self, inference: Inference) -> Inference:
        self.inference = inference
        return inference


def _is_repair(block: Block) -> bool:
    return block.HasField("user") and REPAIR_KEY in block.metadata

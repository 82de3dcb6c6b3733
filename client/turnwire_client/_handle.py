"""One inference in the caller's hand: its events, its result, its cancel."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal, Self, TypeAlias

from turnwire.v1.inference_pb2 import Inference, InferenceState, Usage, WaitUntil
from turnwire.v1.inference_service_pb2 import CancelRequest, GetInferenceRequest, WaitRequest, WaitResponse
from turnwire.v1.session_service_pb2 import GetTurnRequest
from turnwire.v1.turn_pb2 import Turn, TurnView
from turnwire_client._backoff import Patience
from turnwire_client._errors import InferenceCancelledError, RequestError
from turnwire_client._requests import to_duration
from turnwire_client._status import from_error, is_transient
from turnwire_client._transport import Transport
from turnwire_client._watch import EventStream, IfCompacted, Start

# How much of the turn a result has: no blocks, what this inference was given and made, or all blocks of its ancestry.
View: TypeAlias = Literal["basic", "delta", "full"]

VIEWS: dict[View, TurnView.ValueType] = {
    "basic": TurnView.TURN_VIEW_BASIC,
    "delta": TurnView.TURN_VIEW_DELTA,
    "full": TurnView.TURN_VIEW_FULL,
}

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


@dataclass(frozen=True, slots=True)
class Result:
    """What an inference came to. `turn` is None while there is none, or when the inference ended before it ran."""

    inference: Inference
    turn: Turn | None

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
        """The answer: the text that the inference produced, after its last tool's answer, joined. May be partial."""
        if self.turn is None:
            return ""
        produced = self.turn.block_count - self.turn.given_block_count
        pieces: list[str] = []
        for block in self.turn.blocks[-produced:] if produced else ():
            if block.HasField("tool_use"):
                pieces.clear()
            elif block.HasField("llm_text"):
                pieces.append(block.llm_text.text)
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

        Returns also when the client has to act (WAITING_FOR_TOOLS, PAUSED), unless `until_end`. Goes on through
        restarts of the server for as long as `Policy.resume` allows, once the server has answered at all.

        Raises what `Result.raise_for_state` does, unless `raise_on_failure` is False; TimeoutError after `timeout`
        seconds, while the inference goes on; RequestError; ValueError for a timeout that is not a number of seconds.
        """
        if timeout is not None:
            to_duration(timeout)
        response = await self._wait(timeout, view, until_end=until_end)
        result = Result(response.inference, await self._whole_turn(response, view))
        return result.raise_for_state() if raise_on_failure else result

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


async def complete_turn(transport: Transport, request: GetTurnRequest, turn: Turn) -> Turn:
    """Adds to a turn the blocks of the pages that follow the request's page token."""
    while request.page_token:
        response = await transport.call(transport.sessions.GetTurn, request)
        turn.blocks.extend(response.turn.blocks)
        request.page_token = response.next_page_token
    return turn

"""Defects of streams: what is resumed, from where, how it ends, and what is let pass."""

import time
from collections.abc import Sequence
from typing import Any

from planting import plant, swap, with_policy

from turnwire.v1.event_pb2 import Event
from turnwire.v1.inference_service_pb2 import (
    SubscribeEventsRequest,
    SubscribeEventsResponse,
    SubscriptionEndReason,
)
from turnwire_client import _watch
from turnwire_client._continuity import Continuity
from turnwire_client._errors import OutOfRangeError, RequestError, StreamLostError
from turnwire_client._transport import Transport
from turnwire_client._watch import Cursor, EventStream

END = SubscriptionEndReason


def swap_requests(change: Any) -> None:
    """Has every request for a stream changed, with the stream that it is for at hand."""

    def changing(make: Any) -> Any:
        def make_and_change(self: EventStream) -> SubscribeEventsRequest:
            request: SubscribeEventsRequest = make(self)
            change(self, request)
            return request

        return make_and_change

    swap(EventStream, "_request", changing)


def _swap_conclusions(reason: int, conclude: Any) -> None:
    """Has something else done when a stream ends for this reason."""

    def other(usual: Any) -> Any:
        async def conclude_otherwise(self: Any, told: int) -> None:
            if told != reason:
                await usual(self, told)
            else:
                self._end = None
                await conclude(self)

        return conclude_otherwise

    swap(EventStream, "_conclude", other)


async def _stop(self: EventStream) -> None:
    await self.aclose()


async def _resume(self: Any) -> None:
    await self._recover(None)


@plant
def does_not_resume() -> None:
    def without(_: Any) -> Any:
        async def give_up(self: EventStream, failure: RequestError | None) -> None:
            await self.aclose()
            raise failure or StreamLostError("it was cut", 0, "")

        return give_up

    swap(EventStream, "_recover", without)


@plant
def takes_a_cut_for_the_end() -> None:
    def wrong(recover: Any) -> Any:
        async def end(self: EventStream, failure: RequestError | None) -> None:
            await (recover(self, failure) if failure is not None else self.aclose())

        return end

    swap(EventStream, "_recover", wrong)


@plant
def resumes_from_the_beginning() -> None:
    def begin(stream: Any, request: SubscribeEventsRequest) -> None:
        if stream._seen.log:
            stream._seen.after_sequence = None
            request.from_beginning.SetInParent()

    swap_requests(begin)


@plant
def goes_live_again_after_a_cut() -> None:
    def forget(stream: Any, request: SubscribeEventsRequest) -> None:
        if stream._live and not stream._seen.started:
            stream._seen.after_sequence = None
            request.live.SetInParent()

    swap_requests(forget)


@plant
def resumes_without_the_log() -> None:
    swap_requests(lambda _stream, request: request.ClearField("log"))


@plant
def resumes_after_the_last_event_and_not_after_the_heartbeat() -> None:
    last: dict[int, int] = {}

    def noting(take: Any) -> Any:
        def note(self: Continuity, response: SubscribeEventsResponse) -> Sequence[Event]:
            events: Sequence[Event] = take(self, response)
            if events:
                last[id(self)] = events[-1].sequence
            return events

        return note

    def set_back(stream: Any, request: SubscribeEventsRequest) -> None:
        if id(stream._seen) in last and request.HasField("after_sequence"):
            request.after_sequence = stream._seen.after_sequence = last[id(stream._seen)]

    swap(Continuity, "take", noting)
    swap_requests(set_back)


@plant
def has_the_cursor_of_the_response() -> None:
    def wrong(_: Any) -> Any:
        return property(lambda self: Cursor(self._seen.after_sequence or 0, self._seen.log))

    swap(EventStream, "cursor", wrong)


@plant
def waits_for_ever_on_a_silent_stream() -> None:
    swap(Transport, "__init__", with_policy(silence_seconds=3600.0))


@plant
def takes_heartbeats_for_silence() -> None:
    def counting(read: Any) -> Any:
        heard: dict[int, float] = {}

        async def read_events_only(self: Any) -> SubscribeEventsResponse | None:
            response: SubscribeEventsResponse | None = await read(self)
            now = time.monotonic()
            if response is not None and not response.events and not response.HasField("opened"):
                silent = now - heard.setdefault(id(self), now)
                return None if silent > self._transport.policy.silence_seconds else response
            heard[id(self)] = now
            return response

        return read_events_only

    swap(EventStream, "_read", counting)


@plant
def subscribes_again_after_the_terminal_event() -> None:
    def insisting(recover: Any) -> Any:
        async def insist(self: Any, failure: RequestError | None) -> None:
            self._seen.finished = False
            if self._seen.after_sequence:
                self._seen.after_sequence -= 1
            await recover(self, failure)

        return insist

    swap(EventStream, "_recover", insisting)


@plant
def takes_a_drain_for_the_end() -> None:
    _swap_conclusions(END.SUBSCRIPTION_END_REASON_DRAINING, _stop)


@plant
def takes_a_deleted_session_for_the_end() -> None:
    _swap_conclusions(END.SUBSCRIPTION_END_REASON_SESSION_DELETED, _stop)


@plant
def resumes_with_credentials_that_have_expired() -> None:
    _swap_conclusions(END.SUBSCRIPTION_END_REASON_CREDENTIALS_EXPIRED, _resume)


@plant
def believes_that_an_inference_has_ended() -> None:
    _swap_conclusions(END.SUBSCRIPTION_END_REASON_INFERENCE_FINISHED, _stop)


@plant
def loops_on_a_cursor_that_does_not_fit() -> None:
    def looping(passes: Any) -> Any:
        return lambda self, failure: passes(self, failure) or isinstance(failure, OutOfRangeError)

    swap(EventStream, "_passes", looping)


@plant
def begins_anew_silently_when_the_cursor_does_not_fit() -> None:
    def resetting(recover: Any) -> Any:
        async def reset(self: Any, failure: RequestError | None) -> None:
            if not isinstance(failure, OutOfRangeError):
                await recover(self, failure)
                return
            self._hang_up()
            self._seen.after_sequence, self._seen.log = None, ""

        return reset

    swap(EventStream, "_recover", resetting)


@plant
def resumes_whatever_was_refused() -> None:
    swap(EventStream, "_passes", lambda _: lambda _self, _failure: True)


@plant
def gives_up_when_a_limit_holds_it_up() -> None:
    swap(EventStream, "_passes", lambda _: lambda _self, failure: _watch.is_transient(failure))


@plant
def does_not_look_what_a_stream_was_opened_on() -> None:
    swap(Continuity, "_check_opened", lambda _: lambda _self, _response: None)


@plant
def follows_a_log_that_is_another() -> None:
    def trusting(check: Any) -> Any:
        def trust(self: Continuity, response: SubscribeEventsResponse) -> None:
            if response.HasField("opened"):
                self.log = response.opened.log
            check(self, response)

        return trust

    swap(Continuity, "_check_opened", trusting)


def _lenient(is_let_pass: Any) -> Any:
    """A `take` that moves on to where the response begins, when that is let pass."""

    def lenient(take: Any) -> Any:
        def take_leniently(self: Continuity, response: SubscribeEventsResponse) -> Sequence[Event]:
            after = self.after_sequence
            if after is not None and is_let_pass(response.after_sequence, after):
                self.after_sequence = response.after_sequence
            return take(self, response)

        return take_leniently

    return lenient


@plant
def ignores_gaps_between_responses() -> None:
    swap(Continuity, "take", _lenient(lambda begins, due: begins > due))


@plant
def hands_out_duplicates() -> None:
    swap(Continuity, "take", _lenient(lambda begins, due: begins < due))


@plant
def does_not_look_at_the_order_within_a_response() -> None:
    def blind(_: Any) -> Any:
        def look_at_owners_only(self: Any, events: Sequence[Event], _after: int, _through: int) -> None:
            for event in events:
                self.started = True
                self._check_belongs(event)

        return look_at_owners_only

    swap(Continuity, "_check_order", blind)


@plant
def does_not_look_whose_events_they_are() -> None:
    def blind(_: Any) -> Any:
        def look_at_the_end_only(self: Continuity, event: Event) -> None:
            self.finished = event.HasField("inference_finished")

        return look_at_the_end_only

    swap(Continuity, "_check_belongs", blind)

"""Defects of requests: keys, repetitions, errors, waits, pages."""

import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.message import Message
from planting import plant, swap, swap_everywhere, with_policy

from turnwire.v1.inference_pb2 import InferenceState
from turnwire.v1.inference_service_pb2 import WaitResponse
from turnwire_client import _client, _errors, _handle, _sessions, _transport, _watch
from turnwire_client._backoff import Patience
from turnwire_client._errors import CataloguedError, RequestError
from turnwire_client._handle import InferenceHandle, Result
from turnwire_client._tools import Required
from turnwire_client._transport import Transport

TRANSIENT = (_transport, _handle, _watch)
Judge = Callable[[CataloguedError], bool]


@plant
def mints_a_new_key_for_each_try() -> None:
    def with_new_keys(call: Any) -> Any:
        async def call_with_new_key(self: Transport, rpc: Any, request: Any, **options: Any) -> Any:
            if "idempotency_key" in request.DESCRIPTOR.fields_by_name:
                request.idempotency_key = str(uuid.uuid4())
            return await call(self, rpc, request, **options)

        return call_with_new_key

    swap(Transport, "call", with_new_keys)


@plant
def does_not_repeat_what_had_no_reply() -> None:
    swap(Transport, "call_repeatable", lambda _: Transport.call)


@plant
def sends_no_key() -> None:
    swap_everywhere("mint_key", lambda _: lambda: "", _client, _handle, _sessions)


@plant
def has_one_key_for_all() -> None:
    swap_everywhere("mint_key", lambda _: lambda: "the-only-one", _client, _handle, _sessions)


@plant
def takes_a_slow_reply_for_a_lost_one() -> None:
    swap(Transport, "__init__", with_policy(rpc_timeout_seconds=1.0))


@plant
def repeats_without_back_off() -> None:
    does_not_repeat_reads()  # or gRPC would, with its own back-off

    def without(_: Any) -> Any:
        async def go_on(_self: Patience, _failure: RequestError | None) -> bool:
            return True

        return go_on

    swap(Patience, "wait", without)


@plant
def does_not_look_at_retry_info() -> None:
    def blind(wait: Any) -> Any:
        async def wait_blindly(self: Patience, failure: RequestError | None) -> bool:
            if failure is not None:
                failure.retry_delay = None
            return await wait(self, failure)

        return wait_blindly

    swap(Patience, "wait", blind)


@plant
def repeats_what_was_refused() -> None:
    swap_everywhere("is_transient", lambda _: lambda _error: True, *TRANSIENT)


@plant
def tells_that_nothing_can_be_repeated() -> None:
    for kind in _errors.ERRORS.values():
        kind.retry = _errors.Retry.NO


@plant
def treats_an_unknown_reason_as_final() -> None:
    def known_only(judge: Judge) -> Judge:
        return lambda error: judge(error) and (not error.reason or error.reason in _errors.ERRORS)

    swap_everywhere("is_transient", known_only, *TRANSIENT)


@plant
def treats_an_unknown_reason_as_transient() -> None:
    def gullible(judge: Judge) -> Judge:
        return lambda error: judge(error) or bool(error.reason and error.reason not in _errors.ERRORS)

    swap_everywhere("is_transient", gullible, *TRANSIENT)


@plant
def loses_the_code_of_an_unknown_reason() -> None:
    def losing(translate: Any) -> Any:
        def lose(*told: Any) -> CataloguedError:
            found: CataloguedError = translate(*told)
            if found.reason not in _errors.ERRORS:
                found.code = grpc.StatusCode.UNKNOWN
            return found

        return lose

    swap_everywhere("from_rpc_error", losing, _transport, _watch)
    swap(_handle, "from_error", losing)


@plant
def believes_messages() -> None:
    def believing(judge: Judge) -> Judge:
        def believe(error: CataloguedError) -> bool:
            if "not try again" in error.message:
                return False
            return judge(error) or "try again" in error.message or "UNAVAILABLE" in error.message

        return believe

    swap_everywhere("is_transient", believing, *TRANSIENT)


@plant
def takes_reasons_from_messages() -> None:
    def misled(translate: Any) -> Any:
        def read(error: Any, result: Any) -> CataloguedError:
            found: CataloguedError = translate(error, result)
            found.reason = error.message if error.message.isupper() else found.reason
            return found

        return read

    swap(_handle, "from_error", misled)


@plant
def asks_again_at_once_when_a_wait_was_not_held() -> None:
    swap(_handle, "EARLY_SECONDS", lambda _: 0.0)


@plant
def takes_the_end_of_a_wait_for_the_end() -> None:
    swap(_handle, "TERMINAL", lambda terminal: terminal | {InferenceState.INFERENCE_STATE_RUNNING})


@plant
def takes_an_unknown_state_for_the_end() -> None:
    unknown = range(8, 200)

    def trusting(wait: Any) -> Any:
        async def end_at_once(self: InferenceHandle, timeout: Any, view: Any, *, until_end: bool) -> Any:
            if self.inference is not None and self.inference.state in unknown:
                return WaitResponse(inference=self.inference)
            return await wait(self, timeout, view, until_end=until_end)

        return end_at_once

    swap(_handle, "TERMINAL", lambda terminal: terminal | set(unknown))
    swap(InferenceHandle, "_wait", trusting)


@plant
def does_not_wait_again_after_a_cut() -> None:
    does_not_repeat_reads()
    swap(_handle, "is_transient", lambda _: lambda _error: False)


@plant
def waits_for_ever() -> None:
    swap(
        InferenceHandle,
        "_wait",
        lambda wait: lambda self, _timeout, view, *, until_end: wait(self, None, view, until_end=until_end),
    )


@plant
def tells_every_end_as_success() -> None:
    swap(Result, "raise_for_state", lambda _: lambda self: self)


@plant
def forgets_what_waits_for_the_client() -> None:
    def forgetful(_: Any) -> Any:
        async def read_nothing(*_: object) -> Required:
            return Required()

        return read_nothing

    swap(_handle, "read_required", forgetful)


@plant
def takes_the_first_page_for_all() -> None:
    def first_page(_: Any) -> Any:
        async def complete(_transport: Transport, _request: Any, turn: Any) -> Any:
            return turn

        return complete

    swap_everywhere("complete_turn", first_page, _handle, _sessions)


def _forgetting(request_name: str, field: str) -> None:
    """Leaves a field out of the request for every page but the first."""

    def forgetful(call: Any) -> Any:
        async def call_forgetfully(
            self: Transport, rpc: Callable[..., Awaitable[Any]], request: Message, **options: Any
        ) -> Any:
            if request.DESCRIPTOR.name == request_name and getattr(request, "page_token", ""):
                request.ClearField(field)
            return await call(self, rpc, request, **options)

        return call_forgetfully

    swap(Transport, "call", forgetful)


@plant
def forgets_the_labels_of_a_listing() -> None:
    _forgetting("ListSessionsRequest", "labels")


@plant
def forgets_the_states_of_a_listing() -> None:
    _forgetting("ListInferencesRequest", "states")


@plant
def forgets_the_order_of_a_listing() -> None:
    _forgetting("ListTurnsRequest", "newest_first")


@plant
def forgets_the_view_of_a_turn() -> None:
    _forgetting("GetTurnRequest", "view")


@plant
def forgets_the_cursor_of_a_listing() -> None:
    _forgetting("ListEventsRequest", "after_sequence")


@plant
def does_not_repeat_reads() -> None:
    def without_retries(options: Any) -> Any:
        return lambda: [(key, value) for key, value in options() if "retries" not in key and "config" not in key]

    swap(_client, "channel_options", without_retries)


@plant
def begins_a_listing_anew_when_its_token_is_refused() -> None:
    def insisting(call: Any) -> Any:
        async def call_again(self: Transport, rpc: Any, request: Any, **options: Any) -> Any:
            try:
                return await call(self, rpc, request, **options)
            except _errors.InvalidPageTokenError:
                request.page_token = ""
                return await call(self, rpc, request, **options)

        return call_again

    swap(Transport, "call", insisting)

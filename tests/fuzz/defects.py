"""The real server with one defect: what the search, and the sequences, have to find. For tests, and nothing else.

`python -m fuzz.defects NAME ...` starts `turnwire serve` with a patch; each is a mistake that a change could make.
"""

import itertools
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from google.rpc import status_pb2

from fuzz.world import SESSIONS
from turnwire_server.__main__ import main as serve
from turnwire_server.domain.errors import (
    InferenceNotFoundError,
    InvalidPageTokenError,
    MalformedMessageError,
    SessionNotFoundError,
    TurnwireError,
)
from turnwire_server.domain.inference import ConflictPolicy
from turnwire_server.rpc import call as _call
from turnwire_server.rpc import engine_service, inference_service, session_service
from turnwire_server.rpc.server import RpcServer
from turnwire_server.runtime.inference_loop import Attempt
from turnwire_server.stores import memory_starts, sqlite_inferences
from turnwire_server.stores.line import InLine
from turnwire_server.telemetry.logs import logger
from turnwire_server.wire import inference

# What the rpcs use, to be replaced.
call: Any = _call

# How long what is slow takes.
SLOW_SECONDS = 4.0

_kept: list[bytearray] = []


def _before(service: Any, method: str, act: Callable[[Any], object]) -> None:
    """Have something happen to each request of an rpc before it is served."""
    original = getattr(service, method)

    async def patched(self: Any, request: Any, caller: Any) -> Any:
        act(request)
        return await original(self, request, caller)

    setattr(service, method, patched)


def _status(make: Callable[[TurnwireError, status_pb2.Status], status_pb2.Status]) -> None:
    """Have the statuses of errors be others."""
    original = call.to_status

    def patched(error: TurnwireError) -> status_pb2.Status:
        return make(error, original(error))

    call.to_status = patched


def crash() -> None:
    """An rpc raises KeyError where a field is set."""
    sizes = {0: 50, 1: 1}  # no more than the world asks for, which is made with this server
    _before(session_service.SessionService, "list_turns", lambda request: sizes[request.page_size])


def no_details() -> None:
    """An error goes out without its details."""

    def strip(error: TurnwireError, status: status_pb2.Status) -> status_pb2.Status:
        if isinstance(error, SessionNotFoundError):
            return status_pb2.Status(code=status.code, message=status.message)
        return status

    _status(strip)


def other_metadata() -> None:
    """An error lacks a key that the catalogue promises."""

    def strip(error: TurnwireError, status: status_pb2.Status) -> status_pb2.Status:
        if isinstance(error, MalformedMessageError):
            del status.details[0]
            status.details.append(call.to_status(InvalidPageTokenError()).details[0])
        return status

    _status(strip)


def unlisted_reason() -> None:
    """An rpc fails with a reason that is not one of its own."""

    def refuse(request: Any) -> None:
        if request.session_id not in SESSIONS:
            raise InferenceNotFoundError(inference_id=request.session_id)

    _before(session_service.SessionService, "get_session", refuse)


def python_words() -> None:
    """The message of an error is what Python says."""

    def name(error: TurnwireError, status: status_pb2.Status) -> status_pb2.Status:
        if isinstance(error, InvalidPageTokenError):
            status.message = repr(ValueError("Incorrect padding"))
        return status

    _status(name)


def no_rules() -> None:
    """The rules of the contract are not checked for one rpc."""
    original = call.check_rules

    def check(request: Any) -> None:
        if request.DESCRIPTOR.name != "UpdateSessionRequest":
            original(request)

    call.check_rules = check


def quiet_failure() -> None:
    """Something fails behind an answer that looks well: only the log tells."""

    def log(request: Any) -> None:
        if request.newest_first or request.page_token:
            logger().error("the turns could not be counted")

    _before(session_service.SessionService, "list_turns", log)


def slow() -> None:
    """A request keeps the whole server for longer than an answer may take, and so does the same one sent again."""

    def wait(request: Any) -> None:
        if request.profile:
            time.sleep(SLOW_SECONDS)

    _before(engine_service.EngineService, "get_profile", wait)


def greedy() -> None:
    """Something of each malformed request is kept."""

    def keep(error: TurnwireError, status: status_pb2.Status) -> status_pb2.Status:
        if isinstance(error, MalformedMessageError):
            _kept.append(bytearray(b"x" * 30 * 1024 * 1024))
        return status

    _status(keep)


def mortal() -> None:
    """A request ends the process."""

    def end(request: Any) -> None:
        if request.HasField("revision"):
            os._exit(3)

    _before(session_service.SessionService, "delete_session", end)


# --- what only calls below gRPC tell ----------------------------------------------------------------------


def listen_once() -> None:
    """When gRPC ends its server by itself, that is the end."""

    async def run(self: Any) -> None:
        await self._server.wait_for_termination()

    module: Any = RpcServer
    module.run = run


# --- what only a sequence of calls tells ------------------------------------------------------------------


def _starts(change: Callable[[Any], Any]) -> None:
    """Have every start be another one."""
    module: Any = inference_service
    original = module._start_command

    def patched(*arguments: Any) -> Any:
        return change(original(*arguments))

    module._start_command = patched


def no_key() -> None:
    """A start does not look at its idempotency key."""

    def forget(command: Any) -> Any:
        return replace(command, idempotency=None)

    _starts(forget)


def one_attempt() -> None:
    """A start does not look at attempts_max."""

    def hold_to_one(command: Any) -> Any:
        return replace(command, attempts_max=1)

    _starts(hold_to_one)


def no_rollback() -> None:
    """ROLLBACK is taken for INTERRUPT."""

    def confuse(command: Any) -> Any:
        is_rollback = command.conflict_policy is ConflictPolicy.ROLLBACK
        return replace(command, conflict_policy=ConflictPolicy.INTERRUPT) if is_rollback else command

    _starts(confuse)


def last_in_first_out() -> None:
    """A new inference enters a line at its beginning."""
    modules: tuple[Any, ...] = (memory_starts, sqlite_inferences)

    def decide_rank(_policy: ConflictPolicy, line: Sequence[InLine]) -> int:
        return min([place.rank for place in line] or [0]) - 1

    for module in modules:
        module.decide_rank = decide_rank


def lost_event() -> None:
    """A stream leaves out what it should deliver, once in a while."""
    module: Any = inference_service
    original, numbers = module._encode_delivery, itertools.count(1)

    def encode(delivery: Any) -> bytes:
        is_shortened = delivery.frames and next(numbers) % 20 == 0
        return bytes(original(replace(delivery, frames=delivery.frames[:-1]) if is_shortened else delivery))

    module._encode_delivery = encode


def rewritten_history() -> None:
    """An inference that has ended is not always told in the same way."""
    module: Any = inference
    original, numbers = module.to_proto, itertools.count(1)

    def to_proto(noun: Any) -> Any:
        message = original(noun)
        if noun.state.is_terminal:
            message.usage.cached_tokens = next(numbers)
        return message

    module.to_proto = to_proto


def stuck() -> None:
    """A cancel is promised, and does not happen where an engine runs."""

    def ignore(_attempt: Attempt) -> None:
        return

    module: Any = Attempt
    module.cancel = ignore


def _named(*defects: Callable[[], None]) -> dict[str, Callable[[], None]]:
    return {each.__name__: each for each in defects}


REQUEST_DEFECTS = _named(
    crash, no_details, other_metadata, unlisted_reason, python_words, no_rules, quiet_failure, slow, greedy, mortal
)
RAW_DEFECTS = _named(listen_once)
SEQUENCE_DEFECTS = _named(no_key, one_attempt, no_rollback, last_in_first_out, lost_event, rewritten_history, stuck)


def main() -> int:
    """Serve with the defect that the first argument names."""
    (REQUEST_DEFECTS | RAW_DEFECTS | SEQUENCE_DEFECTS)[sys.argv.pop(1)]()
    return serve()


if __name__ == "__main__":
    sys.exit(main())

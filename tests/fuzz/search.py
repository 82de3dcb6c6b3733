"""Sends requests of all kinds to a real server, and proves that each is answered as the contract says.

`python -m fuzz.search --examples 20000 --seed 1`, or `make fuzz`. The seed gives the requests; what is left of the ones
before, and the timing, are the server's own. The first answer that must not be ends the search; what is printed then is
the simplest request that was found to be answered so, and goes into fuzz/corpus.py once its cause is removed.
"""

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from fuzz.caller import Answer, Attempt, Headers
from fuzz.draws import Draws, shrink
from fuzz.raw_http2 import make_call
from fuzz.requests import make_request
from fuzz.rpcs import Rpc, rpcs
from fuzz.stage import FOLDER
from fuzz.target import Target

# Headers that a request may go with; those of more than 8 KiB the transport may refuse.
_HEADERS: Sequence[Headers] = (
    (("x-a-bin", b"\x00\xff" * 20),),
    (("authorization", "Bearer nobody"), ("authorization", "Basic ?")),
    tuple((f"x-{number}", "y") for number in range(100)),
    (("x-long", "z" * 4000),),
    (("x-long", "z" * 40_000),),
    (("x-empty", ""), ("x-empty-bin", b"")),
    (("grpc-previous-rpc-attempts", "99"), ("x-forwarded-for", "127.0.0.1"), ("traceparent", "00-zz-zz-zz")),
    (("x-spaces", "  a  b  "), ("content-language", "xx"), ("cookie", "a=b; c")),
)

# How soon a client may give up: while the request is on its way, before it is read, while it is served.
_SECONDS = (0.0005, 0.002, 0.02)

_HEX_SHOWN_MAX = 4000

# How often a request that fails is made simpler, and sent again; and for how long, as one that is late takes its time.
_SHRINKS_MAX = 400
_SHRINK_SECONDS_MAX = 300.0

_COMMAND = "PYTHONPATH=tests:tests/conformance python -m fuzz.search"

# For so many requests there is one call in HTTP/2 that no gRPC client makes.
_REQUESTS_PER_RAW = 20

# After how many requests it is told how it goes.
_PROGRESS_REQUESTS = 1000


@cache
def _weighted_names() -> Sequence[str]:
    """Return the names of the rpcs, those with large requests more often."""
    return [
        name for name, rpc in sorted(rpcs().items()) for _ in range(1 + min(_size(rpc.method.input_type, 4) // 12, 4))
    ]


def _size(descriptor: Descriptor, depth: int) -> int:
    """Return how many fields a message has, those inside it counted."""
    inner = [field.message_type for field in descriptor.fields if field.message_type is not None]
    return len(descriptor.fields) + (sum(_size(each, depth - 1) for each in inner) if depth else 0)


def make_attempt(draws: Draws) -> Attempt:
    """Return an attempt at any rpc."""
    rpc = rpcs()[draws.pick(_weighted_names())]
    request = make_request(draws, rpc)
    headers = draws.pick(_HEADERS) if draws.once_in(40) else ()
    return Attempt(rpc, request, headers, draws.pick(_SECONDS) if draws.once_in(40) else 0.0)


@dataclass
class Search:
    """A search on one server. After a failure: what was sent, why what came is wrong, and what does it `again`."""

    target: Target
    shrinks: bool = True
    answers: Counter[str] = field(default_factory=Counter[str])
    examples: int = 0
    failed: Attempt | None = None
    sent: bytes = b""
    error: AssertionError | None = None
    again: str = ""

    def run(self, seed: int, examples: int, first: int = 0) -> bool:
        """Try examples of a seed, from the first one on; return whether one failed.

        What is kept of that one is the simplest request that fails as well, whatever else was sent before.
        """
        for number in range(first, first + examples):
            draws = Draws(chance=random.Random(f"{seed}/{number}"))
            if self._fails(make_attempt(draws)):
                self.again = f"make fuzz SEED={seed} FIRST={number} EXAMPLES=1"
                if self.shrinks and not self._has_earlier_cause():
                    self._shrink(draws.record)
                return True
            self.examples += 1
        return False

    def _shrink(self, record: Sequence[int]) -> None:
        give_up = time.monotonic() + _SHRINK_SECONDS_MAX

        def fails(simpler: Sequence[int]) -> bool:
            return time.monotonic() < give_up and self._fails(make_attempt(Draws(simpler)))

        shrink(record, fails, _SHRINKS_MAX)

    def run_raw(self, seed: int, examples: int, first: int = 0) -> bool:
        """Try calls that no gRPC client makes, from the first one of a seed on; return whether one failed."""
        cause: int | None = None
        for number in range(first, first + examples):
            call = make_call(Draws(chance=random.Random(f"{seed}/raw/{number}")))
            if not call.has_text_path:
                cause = number  # gRPC ends the server over it, which may show with a later call only
            try:
                self.target.check_raw(call)
            except AssertionError as error:
                self.sent, self.error = call.sent, error
                begin = number if cause is None else cause
                self.again = f"{_COMMAND} --seed {seed} --examples 0 --raw {number + 1 - begin} --raw-first {begin}"
                return True
        return False

    def _fails(self, attempt: Attempt) -> bool:
        """Try one request; keep it if it is answered as it must not be, and the server lives to tell of another."""
        try:
            _, answer = self.target.check(attempt)
        except AssertionError as error:
            self.failed, self.sent, self.error = attempt, self.target.world.real(attempt.request), error
            return True
        self.answers[_outcome(answer)] += 1
        self.answers[f"{attempt.rpc.name} {_outcome(answer)}"] += 1
        return False

    def _has_earlier_cause(self) -> bool:
        """Whether an inference failed that an earlier request had started: then that request is what is kept."""
        cause = self.target.start_of(self.error) if self.error else None
        if cause is None or cause is self.failed:
            return False
        self.failed, self.sent = cause, self.target.world.real(cause.request)
        return True

    def report(self) -> str:
        """Return what is known of the request that failed."""
        log = ["the last lines of the server's log:", *self.target.process.log[-5:]]
        if self.failed is None:
            sent = f"a call in raw HTTP/2: {_as_hex(self.sent)}"
            return "\n".join([sent, f"violation: {self.error}", *log])
        rpc, request = self.failed.rpc, self.failed.request
        seconds = f", its client waits {self.failed.seconds} s" if self.failed.seconds else ""
        headers = f", headers {self.failed.headers}" if self.failed.headers else ""
        return "\n".join(
            [
                f"{rpc.path}{seconds}{headers}, example {self.examples}:",
                _as_json(rpc, self.sent),
                f"with stand-ins: Case({rpc.name!r}, {_as_hex(request)})",
                f"as sent:        {_as_hex(self.sent)}",
                f"violation: {self.error}",
                *log,
            ]
        )


def _as_hex(request: bytes) -> str:
    text = request.hex()
    return repr(text) if len(text) <= _HEX_SHOWN_MAX else f"{text[:_HEX_SHOWN_MAX]!r}... of {len(request)} bytes"


def _as_json(rpc: Rpc, request: bytes) -> str:
    try:
        parsed = rpc.request_type.FromString(request)
        return json_format.MessageToJson(parsed, indent=1)[:_HEX_SHOWN_MAX]
    except (DecodeError, json_format.Error, ValueError) as error:
        return f"(no ProtoJSON: {error})"


def _outcome(answer: Answer) -> str:
    """Return the reason of an answer, or its code."""
    info = error_details_pb2.ErrorInfo()
    status = status_pb2.Status.FromString(answer.details or b"")
    return info.reason if any(each.Unpack(info) for each in status.details) else answer.code.name


def main(arguments: Sequence[str] | None = None) -> int:
    """Search for long, and tell how it goes."""
    parser = argparse.ArgumentParser(prog="python -m fuzz.search", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--examples", type=int, default=20_000, help="how many requests to send (default: 20000)")
    parser.add_argument("--seed", type=int, default=1, help="what decides on the requests (default: 1)")
    parser.add_argument("--first", type=int, default=0, help="the number of the first one (default: 0)")
    parser.add_argument("--raw", type=int, help="how many calls in raw HTTP/2 to make (default: 1 for 20 requests)")
    parser.add_argument("--raw-first", type=int, default=0, help="the number of the first of these (default: 0)")
    options = parser.parse_args(arguments)
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="turnwire-fuzz-", dir=FOLDER) as folder, Target(Path(folder)) as target:
        search = Search(target)
        for first in range(options.first, options.first + options.examples, _PROGRESS_REQUESTS):
            count = min(_PROGRESS_REQUESTS, options.first + options.examples - first)
            is_failed = search.run(options.seed, count, first)
            seconds, memory = time.monotonic() - begin, target.memory_mebibytes
            print(f"{search.examples} requests in {seconds:.0f} s, the server has {memory} MiB", flush=True)
            if is_failed:
                print(f"{search.report()}\nVIOLATION; to reproduce:\n  {search.again}")
                return 1
        raw = options.examples // _REQUESTS_PER_RAW if options.raw is None else options.raw
        if search.run_raw(options.seed, raw, options.raw_first):
            print(f"{search.report()}\nVIOLATION; to reproduce:\n  {search.again}")
            return 1
        print(f"{raw} calls in raw HTTP/2")
        for name, times in sorted(search.answers.items()):
            print(f"{times:9} {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The server that is fuzzed: a process with profiles, a store, a log that is read along, and a world of sessions."""

import re
import time
from collections import Counter, deque
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from fuzz.caller import PATIENCE, Answer, Attempt, call
from fuzz.oracle import check_answer, check_log
from fuzz.raw_http2 import RawCall, exchange
from fuzz.world import World, profiles_text
from support.server import WITH_TESTS, ServerProcess
from turnwire.v1 import inference_pb2
from turnwire.v1 import inference_service_pb2 as pb

# How much memory the server may have, whatever it is sent.
MEMORY_MEBIBYTES_MAX = 700

# After so many requests the world is made whole again.
_RENEW_REQUESTS = 20

# How long an inference may run before it is looked at, and how many are remembered with the request that started them.
_SETTLE_SECONDS = 1.5
_STARTS_KEPT_MAX = 500
_START_BYTES_MAX = 200_000

# What is logged, once each, when gRPC ends a server over a path that is no text: by it, by asyncio, and by the server.
_OF_AN_ENDING = re.compile(
    r"\{\"event\": \"("
    r"'utf-8' codec can't decode byte"
    r"|Task exception was never retrieved.* exception=UnicodeDecodeError\("
    r"|gRPC ended the server; listening again)"
)

# A transport that receives what is larger than the contract allows: that it does is what is tested. And one that comes
# back soon when the server listens again.
_OPTIONS = (
    ("grpc.max_receive_message_length", 16 * 1024 * 1024),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
)


class Target:
    """A server to fuzz. `module` is what its process runs; a negative control runs one with a defect."""

    def __init__(self, folder: Path, *, store: str = "sqlite", module: Sequence[str] = ()) -> None:
        profiles = folder / "profiles.yaml"
        profiles.write_text(profiles_text(), encoding="utf-8")
        kept = "memory" if store == "memory" else str(folder / "turnwire.db")
        where = ("--store", kept, "--profiles", str(profiles))
        arguments = (*where, "--heartbeat-seconds", "0.1", "--drain-grace-seconds", "0", "--queue-depth-max", "8")
        self.process = ServerProcess(arguments, WITH_TESTS, ("-m", *(module or ("turnwire_server",))))
        self.requests = 0
        self.memory_mebibytes = 0
        self.patience: Sequence[float] = PATIENCE
        self.memory_mebibytes_max = MEMORY_MEBIBYTES_MAX
        self._read = 0
        self._unbearable = 0  # how many calls were sent over which gRPC may have ended the server
        self._told = Counter[str]()  # how often each of the lines was logged that tell of that
        self._starts: deque[tuple[str, Attempt]] = deque(maxlen=_STARTS_KEPT_MAX)

    def check(self, attempt: Attempt) -> tuple[bytes, Answer]:
        """Send a request; return it as it was sent, and what came back. Raises AssertionError; see oracle."""
        if self.requests % _RENEW_REQUESTS == 0:
            self.check_health()
            self._renew()
        self.requests += 1
        request = self.world.real(attempt.request)
        answer = call(self._channel, attempt, request, self.patience)
        check_answer(attempt, request, answer)
        if attempt.rpc.name == "StartInference":
            self._keep_start(attempt, answer)
        self.check_log()
        return request, answer

    def check_settled(self, attempt: Attempt) -> None:
        """Send a request, and let the inference that it may have started run for a while. Raises AssertionError."""
        _, answer = self.check(attempt)
        if attempt.rpc.name == "StartInference" and answer.responses:
            started = pb.StartInferenceResponse.FromString(answer.responses[0]).inference
            wait = pb.WaitRequest(inference_id=started.inference_id, until=inference_pb2.WAIT_UNTIL_END)
            self.world.inference.Wait(wait, timeout=_SETTLE_SECONDS)
            self.check_log()

    def start_of(self, error: AssertionError) -> Attempt | None:
        """Return what started the inference that an error names; None if it names none that is remembered."""
        return next((attempt for inference_id, attempt in self._starts if inference_id in str(error)), None)

    def _keep_start(self, attempt: Attempt, answer: Answer) -> None:
        for response in answer.responses:
            started = pb.StartInferenceResponse.FromString(response).inference
            if len(attempt.request) <= _START_BYTES_MAX:
                self._starts.append((started.inference_id, attempt))

    def _renew(self) -> None:
        try:
            self.world.renew()
        except grpc.RpcError as error:
            msg = f"what every server can do, this one could not after such requests: {error}"
            raise AssertionError(msg) from error

    def check_raw(self, call: RawCall) -> None:
        """Send what no gRPC client sends. Raises AssertionError when it is not answered, or when something breaks."""
        self._unbearable += not call.has_text_path
        is_answered = exchange(self.process.address, call)
        assert is_answered, "no answer in HTTP/2"
        self.check_health()
        self.check_log()

    def check_health(self) -> None:
        """Check that the server lives, serves, and has not taken too much memory."""
        asked = self._health()
        assert asked.status == health_pb2.HealthCheckResponse.SERVING, f"health is {asked.status}"
        resident = next(
            line for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines() if "VmRSS" in line
        )
        self.memory_mebibytes = int(resident.split()[1]) // 1024
        assert self.memory_mebibytes <= self.memory_mebibytes_max, f"the server has {self.memory_mebibytes} MiB"

    def _health(self) -> health_pb2.HealthCheckResponse:
        """Return what the server tells of its health; where gRPC may just be ending it, that may take several tries."""
        stub: Any = health_pb2_grpc.HealthStub(self._channel)
        give_up = time.monotonic() + self.patience[-1]
        may_end = self._unbearable > 0  # then whoever waits for a connection finds the server that listens again
        while True:
            left = max(give_up - time.monotonic(), 0.1)
            try:
                found: health_pb2.HealthCheckResponse = stub.Check(
                    health_pb2.HealthCheckRequest(), timeout=left, wait_for_ready=may_end
                )
                return found
            except grpc.RpcError as error:
                if not may_end or time.monotonic() >= give_up:
                    msg = f"the server does not tell its health: {error}"
                    raise AssertionError(msg) from error

    def check_log(self) -> None:
        """Check what the server has logged since the last time."""
        lines = self.process.log[self._read :]
        self._read += len(lines)
        check_log(line for line in lines if not self._is_due(line))

    def _is_due(self, line: str) -> bool:
        """Whether a line tells that gRPC ended the server, and some call was sent that explains it."""
        found = _OF_AN_ENDING.match(line)
        if not found:
            return False
        told = found[1][:20]
        self._told[told] += 1
        return self._told[told] <= self._unbearable

    def __enter__(self) -> "Target":
        self.process.start()
        self._channel = grpc.insecure_channel(self.process.address, options=_OPTIONS)
        self.world = World(self._channel)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._channel.close()
        self.process.__exit__(kind, error, trace)

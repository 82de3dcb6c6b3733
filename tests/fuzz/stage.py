"""The server that sequences of calls are made on: it may be ended and started again, and its clients find it again."""

import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import grpc
from google.protobuf.message import Message

from fuzz.model import QUEUE_DEPTH_MAX
from fuzz.oracle import check_log
from support.rpc import refusal
from support.server import WITH_TESTS, ServerProcess
from turnwire.v1.debug_service_pb2_grpc import DebugServiceStub
from turnwire.v1.inference_service_pb2_grpc import InferenceServiceStub
from turnwire.v1.session_service_pb2_grpc import SessionServiceStub

# In memory if the machine has a place for that: a power cut is not among what happens here, and disks are slow.
FOLDER = "/dev/shm" if Path("/dev/shm").is_dir() else None

# How long anything may take that the contract does not let wait.
ANSWER_SECONDS_MAX = 10.0


@dataclass(frozen=True, slots=True)
class Refusal:
    """What a refused call says."""

    reason: str
    metadata: dict[str, str]


class Stage:
    """A server and the stubs of its services. `module`: see ServerProcess.

    `patience_seconds`: how long an inference may take to come to rest.
    """

    def __init__(self, folder: Path, store: str = "sqlite", module: Sequence[str] = ("turnwire_server",)) -> None:
        self.is_durable = store != "memory"
        self.patience_seconds = ANSWER_SECONDS_MAX
        path = str(folder / "turnwire.db") if self.is_durable else "memory"
        limits = ("--drain-grace-seconds", "0", "--queue-depth-max", str(QUEUE_DEPTH_MAX))
        arguments = ("--store", path, "--heartbeat-seconds", "0.1", *limits)
        self.process = ServerProcess(arguments, WITH_TESTS, ("-m", *module))
        self._read = 0
        self._channel: grpc.Channel | None = None

    def start(self) -> None:
        """Start the server, and connect."""
        self.process.start()
        channel = self._channel = grpc.insecure_channel(
            self.process.address, options=[("grpc.use_local_subchannel_pool", 1)]
        )
        self.inference: Any = InferenceServiceStub(channel)
        self.session: Any = SessionServiceStub(channel)
        self.debug: Any = DebugServiceStub(channel)

    def restart(self, how: signal.Signals) -> None:
        """End the server as a crash would, or as an operator would; start it again."""
        self._disconnect()
        self.process.signal(how)
        code = self.process.wait()
        assert code == (0 if how == signal.SIGTERM else -how), f"the server ended with {code}"
        self.start()

    def ask(self, rpc: Any, request: Message) -> Any:
        """Return the response of a call, or its Refusal. Raises AssertionError for another error."""
        try:
            return rpc(request, timeout=ANSWER_SECONDS_MAX)
        except grpc.RpcError as error:
            return _refusal(error)

    def check_log(self) -> None:
        """Check what the server has logged since the last time."""
        lines = self.process.log[self._read :]
        self._read += len(lines)
        check_log(lines)

    def _disconnect(self) -> None:
        if self._channel:
            self._channel.close()
        self._channel = None

    def __enter__(self) -> "Stage":
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._disconnect()
        self.process.__exit__(kind, error, trace)


def _refusal(error: Any) -> Refusal:
    _, reason, metadata = refusal(error)
    assert reason not in ("INTERNAL", "STORE_UNAVAILABLE", "DRAINING"), f"{error.code()}: {error.details()}"
    return Refusal(reason, metadata)

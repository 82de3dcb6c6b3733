"""The history of a test: every call with its outcome, every response of every stream, every trouble. For people.

One JSON text per line, with the seconds since the test began. The checks do not read it, they see the same while it
happens; who looks for the cause of a violation does. It is on disk, so that it costs no memory.
"""

import json
import time
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from types import TracebackType

from google.protobuf.message import Message

from turnwire.v1.inference_service_pb2 import SubscribeEventsResponse

# What names a call: these fields of its request, if it has them.
_NAMES = ("session_id", "inference_id", "idempotency_key", "after_sequence", "reason")


class History:
    """Writes a history to a file."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8")
        self._began = time.monotonic()
        self._calls = count(1)

    def invoke(self, life: int, rpc: str, request: Message) -> int:
        """Tell of a call that is made; return its number."""
        number = next(self._calls)
        named = {name: value for name in _NAMES if (value := getattr(request, name, None))}
        self._write(call=number, what="invoke", life=life, rpc=rpc, **named)
        return number

    def complete(self, call: int, outcome: str, reply: Message | None = None) -> None:
        """Tell what came of a call: ok, refused with its reason, or unknown."""
        told: Mapping[str, object] = {}
        inference = getattr(reply, "inference", None)
        if inference is not None:
            told = {"inference_id": inference.inference_id, "state": inference.state, "attempt": inference.attempt}
        self._write(call=call, what=outcome, **told)

    def see(self, life: int, session_id: str, inference_id: str, response: SubscribeEventsResponse) -> None:
        """Tell of a response of a stream."""
        events = [f"{event.sequence} {event.WhichOneof('payload')}" for event in response.events]
        reach = [response.after_sequence, response.through_sequence]
        self._write(what="saw", life=life, session_id=session_id, filter=inference_id, reach=reach, events=events)

    def tell(self, what: str, **more: object) -> None:
        """Tell of anything else."""
        self._write(what=what, **more)

    def _write(self, **fields: object) -> None:
        at = round(time.monotonic() - self._began, 4)
        self._file.write(json.dumps({"at": at, **fields}, ensure_ascii=False) + "\n")

    def __enter__(self) -> "History":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

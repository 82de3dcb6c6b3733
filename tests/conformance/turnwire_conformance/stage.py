"""What one run of a case has at hand: connections, variables, streams, and the sessions that it has made."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf import json_format
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Value

from turnwire.testing.v1.conformance_pb2 import Refusal
from turnwire_conformance.limits import Limits
from turnwire_conformance.patterns import check_pattern
from turnwire_conformance.rpcs import SLOW_OPTIONS, Refused, check_catalogued
from turnwire_conformance.values import CaseError, pick, resolve

if TYPE_CHECKING:
    from turnwire_conformance.streams import EventStream

# The rpcs that make a session, and where their responses tell which.
MAKERS = {
    "SessionService.CreateSession": "session.session_id",
    "SessionService.ForkSession": "session.session_id",
    "InferenceService.StartInference": "inference.session_id",
}


@dataclass(eq=False)
class Stage:
    """One run. `sessions` are those that it has made and not deleted."""

    address: str
    channel: grpc.aio.Channel
    variables: dict[str, Any]
    limits: Limits = Limits()
    streams: "dict[str, EventStream]" = field(default_factory=dict[str, "EventStream"])
    sessions: set[str] = field(default_factory=set[str])
    _slow: list[grpc.aio.Channel] = field(default_factory=list[grpc.aio.Channel])

    def value(self, value: Value) -> Any:
        """Return a value of a case as Python has it."""
        return json_format.MessageToDict(value)

    def check(self, found: Any, step: Message, field: str, where: str = "") -> None:
        """Check something against the pattern that a step has in a field, if it has one. Errors: MismatchError."""
        if step.HasField(field):
            check_pattern(found, self.value(getattr(step, field)), self.variables, where or field)

    def save(self, root: Any, paths: Mapping[str, str]) -> None:
        """Keep what paths lead to. Errors: AssertionError for one that leads nowhere."""
        for name, path in paths.items():
            try:
                self.variables[name] = pick(root, path)
            except LookupError as error:
                msg = f"nothing to keep as ${name}: {error}"
                raise AssertionError(msg) from None

    def note(self, rpc: str, request: Message, response: Message) -> None:
        """Remember the sessions that are made, and forget those that are deleted."""
        if rpc in MAKERS:
            self.sessions.add(pick(response, MAKERS[rpc]))
        elif rpc == "SessionService.DeleteSession":
            self.sessions.discard(pick(request, "session_id"))

    def note_refused(self, rpc: str, request: Message, answer: Refused) -> None:
        """Forget a session that GetSession does not find: it has deleted itself."""
        if rpc == "SessionService.GetSession" and answer.reason == "SESSION_NOT_FOUND":
            self.sessions.discard(pick(request, "session_id"))

    def slow_channel(self) -> grpc.aio.Channel:
        """Return a new connection whose server may send only a little ahead of what is read."""
        self._slow.append(grpc.aio.insecure_channel(self.address, options=SLOW_OPTIONS))
        return self._slow[-1]

    async def close(self) -> None:
        """Leave every stream, and close the connections that are its own."""
        for stream in self.streams.values():
            await stream.leave()
        for channel in self._slow:
            await channel.close()


def check_refusal(stage: Stage, found: Refused, due: Refusal) -> None:
    """Check how something is refused against a case and the catalogue. Errors: AssertionError."""
    reason = resolve(due.reason, stage.variables)
    assert found.reason == reason, f"it is refused with {found}, and should be with {reason}"
    check_catalogued(found)
    if due.HasField("metadata"):
        check_pattern(found.metadata, stage.value(due.metadata), stage.variables, "the metadata")
    if due.fields:
        fields = resolve(list(due.fields), stage.variables)
        assert sorted(found.fields) == sorted(fields), f"the fields are {list(found.fields)}, and should be {fields}"


def check_status(found: Refused, due: str) -> None:
    """Check the status code of an rpc of which the contract says no more. Errors: AssertionError."""
    if not hasattr(grpc.StatusCode, due):
        msg = f"there is no status code {due}"
        raise CaseError(msg)
    assert found.code == due, f"it fails with {found}, and should with {due}"

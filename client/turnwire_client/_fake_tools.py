"""Tool calls of FakeServer: asked for, waited for, answered. Tools are not executed: results are as told."""

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from google.protobuf.message import Message

from turnwire.v1 import event_pb2 as ev
from turnwire.v1.inference_pb2 import Inference, InferenceState
from turnwire.v1.tool_pb2 import Tool, ToolCall, ToolError, ToolOutcome, ToolPlacement, ToolUse
from turnwire.v1.turn_pb2 import Block, BlockStatus
from turnwire_client._fake_session import FakeSession, Refused, add_block, speak

# What a call waits for.
Wait: TypeAlias = Literal["approval", "client"]

# What answers which wait.
ANSWERS: dict[str, Wait] = {"result": "client", "error": "client", "approved": "approval", "denied": "approval"}


@dataclass(frozen=True, slots=True)
class Round:
    """What the model asks for in one go: tools of the client, and tools of the server that need approval.

    `results` are what comes of the latter, JSON texts by the id of the call. The text is said before.
    """

    calls: tuple[ToolCall, ...] = ()
    approvals: tuple[ToolCall, ...] = ()
    results: Mapping[str, str] = field(default_factory=dict[str, str])
    text: str = ""


@dataclass(slots=True)
class Batch:
    """The calls of a round while they wait. `tools` are those that the request brought."""

    session: FakeSession
    inference: Inference
    told: Round
    tools: Mapping[str, Tool]
    pending: dict[str, Wait] = field(default_factory=dict[str, Wait])
    _approved: list[ToolCall] = field(default_factory=list[ToolCall])
    _args: dict[str, str] = field(default_factory=dict[str, str])  # what approvals replaced, by call

    def ask(self) -> None:
        """Has the model ask, and the inference wait."""
        turn = self.session.turns[self.inference.turn_index]
        if self.told.text:
            speak(self.session, turn, self.told.text, thinking=False, whole=True)
        for call in (*self.told.calls, *self.told.approvals):
            is_client = call in self.told.calls
            placement = ToolPlacement.TOOL_PLACEMENT_CLIENT if is_client else ToolPlacement.TOOL_PLACEMENT_SERVER
            self._tell(call.id, ev.ToolStart(name=call.name, placement=placement))
            if call.args:
                self._tell(call.id, ev.ToolDelta(delta=call.args))
            self._tell(call.id, ev.ToolCallCompleted(call=call))
            status = BlockStatus.BLOCK_STATUS_COMPLETE
            add_block(turn, Block(id=str(uuid.uuid4()), role="assistant", status=status, tool_call=call))
            tool = self.tools.get(call.name)
            needs_approval = not is_client or (tool is not None and tool.approval_required)
            self.pending[call.id] = "approval" if needs_approval else "client"
        self.inference.state = InferenceState.INFERENCE_STATE_WAITING_FOR_TOOLS
        self._tell_required()

    def answer(self, outcomes: Iterable[ToolOutcome]) -> None:
        """Takes answers, or none of them: Raises Refused TOOL_CALL_NOT_PENDING."""
        answers = {outcome.tool_call: outcome for outcome in outcomes}
        refused = [call for call, answer in answers.items() if self.pending.get(call) != ANSWERS[_kind(answer)]]
        if refused:
            calls = ",".join(sorted(refused))
            raise Refused("TOOL_CALL_NOT_PENDING", inference_id=self.inference.inference_id, tool_calls=calls)
        for call, answer in answers.items():
            del self.pending[call]
            if answer.HasField("approved"):
                self._approve(call, answer.approved.args)
            elif answer.HasField("denied"):
                reason = answer.denied.reason or "the call was not approved"
                self._settle(ToolUse(tool_call=call, error=ToolError(message=reason, code="denied")))
            elif answer.HasField("error"):
                self._settle(ToolUse(tool_call=call, error=answer.error))
            else:
                self._settle(ToolUse(tool_call=call, result=answer.result))
        if self.pending and any(answer.HasField("approved") for answer in answers.values()):
            self._tell_required()

    def leave(self) -> None:
        """Has the inference run again, and what was approved be done."""
        self.inference.state = InferenceState.INFERENCE_STATE_RUNNING
        self._tell("", ev.InferenceQueued(queue_position=1))
        self._tell("", ev.InferenceStarted(engine="fake", profile=self.inference.profile))
        for call in self._approved:
            self._settle(ToolUse(tool_call=call.id, result=self.told.results.get(call.id, "{}")))

    def _approve(self, name: str, args: str) -> None:
        server_call = next((call for call in self.told.approvals if call.id == name), None)
        if server_call is None:
            self.pending[name], self._args[name] = "client", args
        else:
            self._approved.append(server_call)

    def _settle(self, use: ToolUse) -> None:
        self._tell(use.tool_call, ev.ToolResult(use=use))
        self._tell(use.tool_call, ev.ToolDone())
        status = BlockStatus.BLOCK_STATUS_COMPLETE
        block = Block(id=str(uuid.uuid4()), role="tool", status=status, tool_use=use)
        add_block(self.session.turns[self.inference.turn_index], block)

    def _tell_required(self) -> None:
        calls = {
            wait: [
                ToolCall(id=call.id, name=call.name, args=self._args.get(call.id, ""))
                for call in (*self.told.calls, *self.told.approvals)
                if self.pending.get(call.id) == wait
            ]
            for wait in ("client", "approval")
        }
        self._tell("", ev.ToolsRequired(calls=calls["client"], approvals=calls["approval"]))

    def _tell(self, entity: str, payload: Message) -> None:
        self.session.append(self.inference.inference_id, payload, entity=entity)


def _kind(outcome: ToolOutcome) -> str:
    return str(outcome.WhichOneof("outcome"))

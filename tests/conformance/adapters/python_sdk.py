"""The adapter of the Python SDK: does with turnwire_client what a line of stdin says, and answers with a line.

turnwire client-conformance -- python tests/conformance/adapters/python_sdk.py
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Literal

from google.protobuf import json_format

from turnwire.testing.v1 import client_conformance_pb2 as pb
from turnwire.v1.inference_service_pb2 import SubscribeUntil
from turnwire.v1.turn_pb2 import TurnView
from turnwire_client import Client, EventStream, InferenceHandle, Policy, errors
from turnwire_client.output import Output

KINDS: list[tuple[type[Exception], pb.ClientErrorKind.ValueType]] = [
    (errors.RequestError, pb.ClientErrorKind.CLIENT_ERROR_KIND_REQUEST),
    (errors.InferenceFailedError, pb.ClientErrorKind.CLIENT_ERROR_KIND_INFERENCE_FAILED),
    (errors.InferenceCancelledError, pb.ClientErrorKind.CLIENT_ERROR_KIND_INFERENCE_CANCELLED),
    (errors.SessionDeletedError, pb.ClientErrorKind.CLIENT_ERROR_KIND_SESSION_DELETED),
    (errors.StreamLostError, pb.ClientErrorKind.CLIENT_ERROR_KIND_STREAM_LOST),
    (errors.ProtocolError, pb.ClientErrorKind.CLIENT_ERROR_KIND_PROTOCOL),
    (TimeoutError, pb.ClientErrorKind.CLIENT_ERROR_KIND_TIMEOUT),
]
UNTIL: dict[int, Literal["follow", "inference_end", "caught_up"]] = {
    SubscribeUntil.SUBSCRIBE_UNTIL_INFERENCE_END: "inference_end",
    SubscribeUntil.SUBSCRIBE_UNTIL_CAUGHT_UP: "caught_up",
}
VIEWS: dict[int, Literal["basic", "delta", "full"]] = {
    TurnView.TURN_VIEW_BASIC: "basic",
    TurnView.TURN_VIEW_DELTA: "delta",
    TurnView.TURN_VIEW_FULL: "full",
}
RETRYABLE = {errors.Retry.NOW, errors.Retry.LATER, errors.Retry.AFTER_RETRY_INFO}


class Adapter:
    """One client at a time, and the handles and the folded output that its user would keep."""

    def __init__(self) -> None:
        self.client: Client | None = None
        self.handles: dict[str, InferenceHandle] = {}
        self.output = Output()

    async def do(self, command: pb.ClientCommand, answer: pb.ClientAnswer) -> None:
        name = command.WhichOneof("command") or ""
        if name == "connect":
            self.client, self.handles, self.output = connect(command.connect), {}, Output()
            return
        if self.client is None:
            raise RuntimeError("connect comes first")
        if name == "start":
            await self.start(self.client, command.start, answer)
        elif name == "events":
            await self.events(self.client, command.events, answer)
        elif name == "result":
            await self.result(command.result, answer)
        elif name == "cancel":
            told = command.cancel
            answer.inference.CopyFrom(await self.handle(told.inference_id, told.session_id).cancel(told.reason))
        elif name == "submit":
            await self.submit(command.submit, answer)
        elif name == "list":
            async for listed in listing(self.client, command.list):
                answer.listed.append(listed)
        elif name == "close":
            await self.client.close()
            self.client = None

    def handle(self, inference_id: str, session_id: str) -> InferenceHandle:
        if self.client is None:
            raise RuntimeError("connect comes first")
        if inference_id not in self.handles:
            self.handles[inference_id] = self.client.inference(inference_id, session_id)
        return self.handles[inference_id]

    async def start(self, client: Client, told: pb.ClientStart, answer: pb.ClientAnswer) -> None:
        handle = await client.start_inference(
            told.session_id or None, told.text, idempotency_key=told.idempotency_key or None
        )
        self.handles[handle.inference_id] = handle
        if handle.inference is not None:
            answer.inference.CopyFrom(handle.inference)

    async def events(self, client: Client, told: pb.ClientEvents, answer: pb.ClientAnswer) -> None:
        stream = self.stream(client, told)
        try:
            async for event in stream:
                answer.events.append(event)
                self.output.take(event)
                if told.events_max and len(answer.events) >= told.events_max:
                    break
        finally:
            answer.text = self.output.text
            answer.cursor.CopyFrom(pb.ClientCursor(after_sequence=stream.cursor.after_sequence, log=stream.cursor.log))
            await stream.aclose()

    def stream(self, client: Client, told: pb.ClientEvents) -> EventStream:
        asked = told.subscribe
        after = asked.after_sequence if asked.HasField("after_sequence") else None
        if asked.until == SubscribeUntil.SUBSCRIBE_UNTIL_INFERENCE_END and not asked.HasField("live"):
            handle = self.handle(asked.inference_id, asked.session_id)
            return handle.events(after, asked.log, snapshot=asked.HasField("snapshot"))
        start: int | Literal["beginning", "snapshot", "live"] = "beginning"
        if after is not None:
            start = after
        elif asked.HasField("snapshot"):
            start = "snapshot"
        elif asked.HasField("live"):
            start = "live"
        until = UNTIL.get(asked.until, "follow")
        return client.watch(asked.session_id, inference_id=asked.inference_id, start=start, until=until, log=asked.log)

    async def result(self, told: pb.ClientResult, answer: pb.ClientAnswer) -> None:
        timeout = told.timeout.ToTimedelta().total_seconds() if told.HasField("timeout") else None
        handle = self.handle(told.inference_id, told.session_id)
        try:
            result = await handle.result(timeout)
        except (errors.InferenceFailedError, errors.InferenceCancelledError) as error:
            answer.inference.CopyFrom(error.result.inference)
            answer.text = error.result.text
            raise
        answer.inference.CopyFrom(result.inference)
        answer.text = result.text
        answer.pending.extend(call.id for call in (*result.required.calls, *result.required.approvals))

    async def submit(self, told: pb.ClientSubmit, answer: pb.ClientAnswer) -> None:
        response = await self.handle(told.inference_id, told.session_id).submit_tool_results(told.outcomes)
        answer.inference.CopyFrom(response.inference)
        answer.pending.extend(response.pending_tool_calls)


def connect(told: pb.ClientConnect) -> Client:
    policy = Policy()
    if told.HasField("request_timeout"):
        policy = replace(policy, rpc_timeout_seconds=told.request_timeout.ToTimedelta().total_seconds())
    if told.HasField("silence"):
        policy = replace(policy, silence_seconds=told.silence.ToTimedelta().total_seconds())
    return Client.connect(told.target, policy=policy)


async def listing(client: Client, told: pb.ClientList) -> AsyncIterator[str]:
    """What the user of the SDK would see of a listing, by identity."""
    which = told.WhichOneof("listing")
    if which == "sessions":
        async for session in client.list_sessions(labels=told.sessions.labels):
            yield session.session_id
    elif which == "inferences":
        async for inference in client.list_inferences(told.inferences.session_id, states=told.inferences.states):
            yield inference.inference_id
    elif which == "turns":
        view = VIEWS.get(told.turns.view, "basic")
        async for turn in client.list_turns(told.turns.session_id, view=view, newest_first=told.turns.newest_first):
            yield turn.id
    elif which == "turn":
        view = VIEWS.get(told.turn.view, "full")
        for block in (await client.get_turn(inference_id=told.turn.inference_id, view=view)).blocks:
            yield block.id
    elif which == "events":
        asked = told.events
        async for event in client.list_events(
            asked.session_id, inference_id=asked.inference_id, after_sequence=asked.after_sequence, log=asked.log
        ):
            yield str(event.sequence)


def told_of(error: Exception) -> pb.ClientError:
    """How the SDK tells its user what went wrong: by class, reason, code and retry."""
    kind = next(
        (kind for type_, kind in KINDS if isinstance(error, type_)), pb.ClientErrorKind.CLIENT_ERROR_KIND_UNSPECIFIED
    )
    told = pb.ClientError(kind=kind, message=f"{type(error).__name__}: {error}")
    if isinstance(error, errors.CataloguedError):
        told.reason, told.code, told.retryable = error.reason, error.code.name, error.retry in RETRYABLE
    return told


async def main(read: Callable[[], str] = sys.stdin.readline) -> None:
    adapter = Adapter()
    while line := await asyncio.to_thread(read):
        answer = pb.ClientAnswer()
        try:
            await adapter.do(json_format.Parse(line, pb.ClientCommand()), answer)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the answer
            answer.error.CopyFrom(told_of(error))
        print(json_format.MessageToJson(answer, indent=None), flush=True)


if __name__ == "__main__":
    asyncio.run(main())

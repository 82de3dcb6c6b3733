"""The steps of a case, one function each. What does not go as the case says is an AssertionError."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from turnwire.testing.v1.conformance_pb2 import Again, Call, Check, Finish, Pages, Read, Step, Tally, Together, Watch
from turnwire.v1 import inference_service_pb2 as pb
from turnwire_conformance.patterns import MismatchError, check_pattern, show
from turnwire_conformance.rpcs import Refused, Rpc, refused, rpcs, unknown_rpc
from turnwire_conformance.stage import Stage, check_refusal, check_status
from turnwire_conformance.streams import RPC, open_stream, read_stream
from turnwire_conformance.values import build, pick, resolve

AGAIN_SECONDS = 0.05

# A listing that never ends is stopped there.
PAGES_MAX = 2000

TERMINAL = ("SUCCEEDED", "FAILED", "CANCELLED")

Answer = Message | Refused


async def take_steps(stage: Stage, steps: Iterable[Step]) -> None:
    """Take steps, one after the other. Errors: AssertionError; CaseError."""
    for number, step in enumerate(steps, 1):
        kind = step.WhichOneof("kind") or ""
        try:
            await _TAKERS[kind](stage, getattr(step, kind))
        except AssertionError as error:
            told = str(error)
            msg = told if told.startswith("step ") else f"step {number}, {_label(step)}: {told}"
            raise AssertionError(msg) from None


def _label(step: Step) -> str:
    match step.WhichOneof("kind"):
        case "call":
            return step.call.rpc
        case "pages":
            return f"all pages of {step.pages.rpc}"
        case "read":
            return f"read {step.read.watch}"
        case kind:
            return str(kind)


# --- calls ----------------------------------------------------------------------------------------


async def _call(stage: Stage, step: Call) -> None:
    name = resolve(step.rpc, stage.variables)
    rpc = rpcs().get(name) or unknown_rpc(name)
    if step.HasField("abandon_after"):
        await _abandon(stage, rpc, step)
    elif step.times > 1:
        answers = await asyncio.gather(*(_ask(stage, rpc, step) for _ in range(step.times)))
        _check_tally(stage, answers, step.tally)
    else:
        await _call_tried(stage, rpc, step)


async def _call_tried(stage: Stage, rpc: Rpc, step: Call) -> None:
    for _ in range(step.tries - 1):
        try:
            await _call_once(stage, rpc, step)
        except AssertionError:
            continue
        return
    await _call_once(stage, rpc, step)


async def _call_once(stage: Stage, rpc: Rpc, step: Call) -> None:
    began = time.monotonic()
    answer = await _ask_again(stage, rpc, step) if step.HasField("again") else await _ask(stage, rpc, step)
    _check_took(time.monotonic() - began, step)
    if step.HasField("refused"):
        assert isinstance(answer, Refused), f"it is not refused with {step.refused.reason}, but answers {show(answer)}"
        check_refusal(stage, answer, step.refused)
    elif step.status:
        assert isinstance(answer, Refused), f"it does not fail with {step.status}, but answers {show(answer)}"
        check_status(answer, step.status)
    else:
        assert isinstance(answer, Message), f"it is refused with {answer}"
        stage.check(answer, step, "expect", "it")
        stage.save(answer, step.save)


async def _ask_again(stage: Stage, rpc: Rpc, step: Call) -> Answer:
    """Ask until the answer is none of those that are asked again, or the time is over."""
    limit = _seconds(step.took_max) if step.HasField("took_max") else stage.limits.again
    again, began = step.again, time.monotonic()
    while True:
        asked = time.monotonic()
        answer = await _ask(stage, rpc, step)
        now = time.monotonic()
        if not _fits(stage, answer, again):
            return answer
        most = _seconds(again.took_max)
        told = answer if isinstance(answer, Refused) else show(answer)
        assert not most or now - asked <= most, f"after {now - asked:.2f} s it is still {told}"
        assert now - began <= limit, f"for {limit:g} s it is {told}"
        await asyncio.sleep(AGAIN_SECONDS)


def _check_took(seconds: float, step: Call) -> None:
    least, most = (_seconds(each) for each in (step.took_min, step.took_max))
    assert seconds >= least, f"it took {seconds:.2f} s, and should take at least {least:g} s"
    assert not most or seconds <= most, f"it took {seconds:.2f} s, and should take at most {most:g} s"


def _seconds(duration: Duration) -> float:
    return duration.ToTimedelta().total_seconds()


async def _ask(stage: Stage, rpc: Rpc, step: Call) -> Answer:
    """Send a request; return the response, or how it is refused."""
    sent, request = _request(stage, rpc, step)
    deadline = _seconds(step.deadline) if step.HasField("deadline") else stage.limits.deadline
    try:
        if rpc.name == RPC:
            return await _first_response(stage, rpc, sent, deadline)
        response = await rpc.call(stage.channel, sent, deadline)
    except grpc.aio.AioRpcError as error:
        answer = refused(error)
        if request is not None:
            stage.note_refused(rpc.name, request, answer)
        return answer
    if request is not None:
        stage.note(rpc.name, request, response)
    return response


def _request(stage: Stage, rpc: Rpc, step: Call) -> tuple[bytes, Message | None]:
    if step.HasField("raw"):
        return bytes.fromhex(resolve(step.raw, stage.variables)), None
    value: Any = stage.value(step.request) if step.HasField("request") else {}
    request = build(rpc.request_class(), value, stage.variables)
    return request.SerializeToString(), request


async def _first_response(stage: Stage, rpc: Rpc, sent: bytes, seconds: float) -> Answer:
    """Open a stream for its first response only: how most refusals of a stream are looked at."""
    stream = rpc.open(stage.channel, sent, seconds)
    read: Any = await stream.read()
    stream.cancel()
    assert read is not grpc.aio.EOF, "the stream ended without a response"
    return rpc.response(read)


async def _abandon(stage: Stage, rpc: Rpc, step: Call) -> None:
    """Make a call and walk away from it."""
    sent, _ = _request(stage, rpc, step)
    calling = asyncio.ensure_future(rpc.call(stage.channel, sent, stage.limits.deadline))
    await asyncio.wait({calling}, timeout=_seconds(step.abandon_after))
    calling.cancel()
    await asyncio.gather(calling, return_exceptions=True)


def _check_tally(stage: Stage, answers: Iterable[Answer], tallies: Iterable[Tally]) -> None:
    counts = [(tally, list[Answer]()) for tally in tallies]
    for answer in answers:
        mine = next((found for tally, found in counts if _fits(stage, answer, tally)), None)
        assert mine is not None, f"one of the answers is none of those that may be: {show(answer)}"
        mine.append(answer)
    for tally, found in counts:
        due = tally.refused.reason or show(stage.value(tally.expect))
        assert len(found) == tally.count, f"{len(found)} answers are {due}, and there should be {tally.count}"
        if found:
            stage.save(found[-1], tally.save)


def _fits(stage: Stage, answer: Answer, due: Tally | Again) -> bool:
    try:
        if isinstance(answer, Refused):
            assert due.HasField("refused")
            check_refusal(stage, answer, due.refused)
        else:
            assert not due.HasField("refused")
            check_pattern(answer, stage.value(due.expect), stage.variables)
    except AssertionError:
        return False
    return True


# --- the other steps --------------------------------------------------------------------------------


async def _watch(stage: Stage, step: Watch) -> None:
    request = build(pb.SubscribeEventsRequest(), stage.value(step.request), stage.variables)
    open_stream(stage, step.name, request, is_slow=step.is_slow)


async def _read(stage: Stage, step: Read) -> None:
    await read_stream(stage, step)


async def _leave(stage: Stage, name: str) -> None:
    await stage.streams[name].leave()


async def _finish(stage: Stage, step: Finish) -> None:
    limit = _seconds(step.took_max) if step.HasField("took_max") else stage.limits.finish
    request = {"inference_id": step.inference_id, "until": "END", "timeout": f"{limit}s", "turn_view": "FULL"}
    wait = rpcs()["InferenceService.Wait"]
    sent = build(wait.request_class(), request, stage.variables).SerializeToString()
    latest = time.monotonic() + limit
    while True:
        try:
            answer = await wait.call(stage.channel, sent, limit + 1)
        except grpc.aio.AioRpcError as error:
            msg = f"it is refused with {refused(error)}"
            raise AssertionError(msg) from None
        try:
            check_pattern(answer, {"inference": {"state": {"$any_of": list(TERMINAL)}}}, {})
            break
        except MismatchError:
            assert time.monotonic() < latest, f"it has not ended after {limit:g} s: {show(answer)}"
            await asyncio.sleep(AGAIN_SECONDS)
    stage.check(answer, step, "expect", "it")
    stage.save(answer, step.save)


async def _pages(stage: Stage, step: Pages) -> None:
    rpc = rpcs()[resolve(step.rpc, stage.variables)]
    elements: list[Any] = []
    sizes: list[int] = []
    tokens: list[str] = [""]
    while tokens[-1] or not sizes:
        request = build(rpc.request_class(), stage.value(step.request), stage.variables)
        build(request, {"page_token": tokens[-1]}, {})
        try:
            response = await rpc.call(stage.channel, request.SerializeToString(), stage.limits.deadline)
        except grpc.aio.AioRpcError as error:
            msg = f"page {len(sizes) + 1} is refused with {refused(error)}"
            raise AssertionError(msg) from None
        page = _elements(response, resolve(step.elements, stage.variables))
        elements += page
        sizes.append(len(page))
        tokens.append(pick(response, "next_page_token"))
        assert len(sizes) < PAGES_MAX, f"there are more than {PAGES_MAX} pages"
        stage.check(response, step, "each", f"page {len(sizes)}")
    stage.check(elements, step, "expect", step.elements)
    stage.check(sizes, step, "sizes", "the sizes of the pages")
    stage.save({"elements": elements, "token": tokens[1]}, step.save)


def _elements(response: Message, path: str) -> list[Any]:
    try:
        return list(pick(response, path))
    except LookupError as error:
        msg = f"{error}: {show(response)}"
        raise AssertionError(msg) from None


async def _check(stage: Stage, step: Check) -> None:
    value = resolve(stage.value(step.value), stage.variables)
    check_pattern(value, stage.value(getattr(step, "is")), stage.variables, str(stage.value(step.value)))


async def _together(stage: Stage, step: Together) -> None:
    branches = [take_steps(stage, branch.steps) for branch in step.branches]
    for result in await asyncio.gather(*branches, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result


async def _pause(_: Stage, step: Duration) -> None:
    await asyncio.sleep(_seconds(step))


_TAKERS: Mapping[str, Callable[[Stage, Any], Awaitable[None]]] = MappingProxyType(
    {
        "call": _call,
        "watch": _watch,
        "read": _read,
        "leave": _leave,
        "finish": _finish,
        "pages": _pages,
        "check": _check,
        "together": _together,
        "pause": _pause,
    }
)

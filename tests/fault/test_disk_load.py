"""What is held against a store after something happened to its disk is found out if it does not hold."""

import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import pytest
import pytest_asyncio

from fault.disk_load import Load, SessionSeen, check_beginning, check_nothing_lost, check_play, read_log, wait_request
from fault.plays import Part, echo
from support.rpc import Stubs, connect, start_request
from turnwire.v1 import inference_pb2, session_service_pb2
from turnwire_conformance.promises import Watch


@pytest_asyncio.fixture
async def stubs(server_address: str) -> AsyncIterator[Stubs]:
    """A real server."""
    async with connect(server_address) as connected:
        yield connected


async def _see(stubs: Stubs) -> SessionSeen:
    """Return what a client saw of a session with one inference."""
    seen = SessionSeen(Watch(await stubs.create_session()))
    request = start_request(seen.watch.session_id, "hello", idempotency_key=seen.watch.session_id)
    started = (await stubs.inference.StartInference(request)).inference
    seen.starts[started.inference_id] = request
    seen.ends[started.inference_id] = await stubs.inference.Wait(wait_request(started.inference_id))
    for event in await read_log(stubs, seen.watch.session_id):
        seen.watch.events.append(event)
        seen.watch.position = event.sequence
    return seen


def _forget_start(seen: SessionSeen) -> None:
    [request] = seen.starts.values()
    request.idempotency_key += "-of-which-nobody-heard"


def _mistake(seen: SessionSeen) -> None:
    seen.starts = dict.fromkeys(["another"], *seen.starts.values())


def _change_end(seen: SessionSeen) -> None:
    next(iter(seen.ends.values())).inference.usage.output_tokens += 1


def _cancel(seen: SessionSeen) -> None:
    seen.cancels |= seen.starts.keys()


def _change_event(seen: SessionSeen) -> None:
    seen.watch.events[2].entity = "another"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_forget_start, "the acknowledged start of"),
        (_mistake, "the key means another inference"),
        (_change_end, "the end of"),
        (_cancel, "the cancel of"),
        (_change_event, "other bytes at 3"),
    ],
)
async def test_what_is_not_as_it_was_seen_is_found(
    stubs: Stubs, change: Callable[[SessionSeen], None], said: str
) -> None:
    seen = await _see(stubs)
    await check_nothing_lost(stubs, [seen.copy()])
    change(seen)
    with pytest.raises(AssertionError, match=said):
        await check_nothing_lost(stubs, [seen])


async def test_a_log_that_began_in_another_way_is_found(stubs: Stubs) -> None:
    seen = await _see(stubs)
    session_id, log = seen.watch.session_id, seen.watch.events
    await check_beginning(stubs, {session_id: log, "never-there": log}, time.time())
    await check_beginning(stubs, {session_id: []}, until_seconds=0)
    with pytest.raises(AssertionError, match="more than it ever had"):
        await check_beginning(stubs, {session_id: log[:-1]}, time.time())
    log[1].attempt += 1
    with pytest.raises(AssertionError, match="Gapless"):
        await check_beginning(stubs, {session_id: log}, time.time())


async def test_an_inference_that_became_something_else_is_found(stubs: Stubs) -> None:
    [reply] = (await _see(stubs)).ends.values()
    check_play(echo("hello"), reply)
    for other in (
        replace(echo("hello"), state=inference_pb2.INFERENCE_STATE_FAILED),
        replace(echo("hello"), finish_class=inference_pb2.FINISH_CLASS_MAX_TOKENS),
        replace(echo("hello"), parts=(Part("llm_text", "goodbye"),)),
    ):
        with pytest.raises(AssertionError, match="echo"):
            check_play(other, reply)


async def test_what_clients_find_is_raised(stubs: Stubs) -> None:
    """Here a session is deleted under its clients and watchers."""
    with pytest.raises(ExceptionGroup, match="what clients and watchers found"):  # noqa: PT012 - it is raised at the end
        async with Load(stubs) as load:
            await load.wait_for("starts", 1)
            for seen in load.seen():
                gone = session_service_pb2.DeleteSessionRequest(session_id=seen.watch.session_id, force=True)
                await stubs.session.DeleteSession(gone)
            await load.wait_for("ends", 1_000_000)

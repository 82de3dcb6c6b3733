"""The tool loop: engine calls and batches of tools by turns, with everything that may come between."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from support.agent_world import AgentWorld, Gadget, Gate, call, say, script
from turnwire_server.domain.errors import IdempotencyKeyReusedError, InferenceNotWaitingError, ToolCallNotPendingError
from turnwire_server.domain.event import ToolResult, ToolsRequired, ToolStart
from turnwire_server.domain.inference import FinishClass, InferenceConfig, InferenceState, Overrides, WaitUntil
from turnwire_server.domain.profile import OnToolError, Profile, ToolPolicy
from turnwire_server.domain.session import NewSession, PauseAction, StepMode
from turnwire_server.domain.tool import (
    Tool,
    ToolApproval,
    ToolCall,
    ToolDenial,
    ToolError,
    ToolOutcome,
    ToolPlacement,
    ToolUse,
)
from turnwire_server.domain.turn import LlmText, SnapshotPhase, User
from turnwire_server.stores.start import Idempotency
from turnwire_server.tools.base import ToolFailure

LOCAL = "local"
SUCCEEDED, FAILED, CANCELLED = InferenceState.SUCCEEDED, InferenceState.FAILED, InferenceState.CANCELLED


def _profile(**policy: Any) -> Profile:
    return Profile("scripted", "scripted", tool_policy=ToolPolicy(**policy))


async def _fail(_: Mapping[str, Any]) -> object:
    raise ToolFailure("it broke", "mine")


async def test_a_tool_is_executed_and_its_result_goes_back_to_the_model() -> None:
    look = Gadget("look")
    async with AgentWorld(look).at_work() as world:
        started = await world.start(script([say("let me see"), call("look", q=1)], [say("I see")]))
        ended = await world.wait(started)
        assert (ended.state, ended.finish_class) == (SUCCEEDED, FinishClass.COMPLETED)
        assert look.calls == [{"q": 1}]
        kinds = [block.kind for block in (await world.turn()).blocks]
        assert [type(kind).__name__ for kind in kinds] == ["User", "LlmText", "ToolCall", "ToolUse", "LlmText"]
        assert await world.outcomes() == {"call_1": '{"q": 1}'}
        assert await world.names(ended) == [
            "InferenceQueued",
            "InferenceStarted",
            "TurnOpened",
            "LlmStart",
            "LlmFinal",
            "ToolStart",
            "ToolCallCompleted",
            "ToolResult",
            "ToolDone",
            "LlmStart",
            "LlmFinal",
            "TurnClosed",
            "InferenceFinished",
        ]
        events = await world.events(ended)
        assert next(e.payload for e in events if isinstance(e.payload, ToolStart)).placement is ToolPlacement.SERVER
        assert ended.usage.output_tokens >= 3  # summed over both engine calls


async def test_refused_and_unknown_calls_are_told_like_any_other() -> None:
    tools = Gadget("look"), Gadget("touch")
    world = AgentWorld(*tools, profile=_profile(allow=frozenset({"look"})))
    async with world.at_work():
        asked = [call("look"), call("touch"), call("fly")]
        ended = await world.wait(await world.start(script(asked, [say("well")])))
        assert ended.state is SUCCEEDED
        assert await world.outcomes() == {"call_1": "{}", "call_2": "not_allowed", "call_3": "unknown_tool"}
        assert tools[1].calls == []
        by_entity: dict[str, list[str]] = {}
        for event in await world.events(ended):
            if event.entity.startswith("call_"):
                by_entity.setdefault(event.entity, []).append(type(event.payload).__name__)
        story = ["ToolStart", "ToolDelta", "ToolCallCompleted", "ToolResult", "ToolDone"]
        assert by_entity == dict.fromkeys(("call_1", "call_2", "call_3"), story)


@pytest.mark.parametrize(
    ("choice", "allowed"), [("none", set[str]()), ("look", {"call_1"}), ("required", {"call_1", "call_2"})]
)
async def test_the_choice_is_kept_when_executing(choice: str, allowed: set[str]) -> None:
    async with AgentWorld(Gadget("look"), Gadget("touch")).at_work() as world:
        options = script([call("look"), call("touch")], [call("touch")], [say("done")])
        overrides = Overrides(InferenceConfig(tool_choice=choice))
        ended = await world.wait(await world.start(options, overrides=overrides))
        assert ended.state is SUCCEEDED
        outcomes = await world.outcomes()
        assert {name for name in ("call_1", "call_2") if outcomes[name] == "{}"} == allowed
        # From the second engine call on a tool need not be used any more; `none` stays.
        assert outcomes["call_3"] == ("not_allowed" if choice == "none" else "{}")


async def test_parallel_tools_of_which_one_fails() -> None:
    slow = Gate()
    tools = Gadget("slow", slow), Gadget("bad", _fail), Gadget("good")
    async with AgentWorld(*tools).at_work() as world:
        asked = [call("slow"), call("bad"), call("good")]
        started = await world.start(script(asked, [say("two of three")]))
        await slow.begun.wait()
        results = await world.told(started, ToolResult, 2)
        assert {event.entity for event in results} == {"call_2", "call_3"}  # told before the slow one has ended
        slow.opened.set()
        ended = await world.wait(started)
        assert ended.state is SUCCEEDED
        assert await world.outcomes() == {"call_1": "{}", "call_2": "mine", "call_3": "{}"}


@pytest.mark.parametrize("parallelism_max", [1, 2, 3, 10])
async def test_no_more_tools_run_at_once_than_the_policy_allows(parallelism_max: int) -> None:
    running, most = 0, 0

    async def count(_: Mapping[str, Any]) -> object:
        nonlocal running, most
        running += 1
        most = max(most, running)
        for _turn in range(20):
            await asyncio.sleep(0)
        running -= 1
        return None

    world = AgentWorld(Gadget("count", count), profile=_profile(parallelism_max=parallelism_max))
    async with world.at_work():
        ended = await world.wait(await world.start(script([call("count")] * 7, [say("ok")])))
        assert (ended.state, most) == (SUCCEEDED, min(parallelism_max, 7))
        assert len(await world.outcomes()) == 7


async def test_a_failure_ends_the_inference_if_the_profile_says_so() -> None:
    slow, later = Gate(), Gadget("later")
    policy = _profile(on_error=OnToolError.ABORT, parallelism_max=2)
    async with AgentWorld(Gadget("slow", slow), Gadget("bad", _fail), later, profile=policy).at_work() as world:
        asked = [call("slow"), call("bad"), call("later")]
        ended = await world.wait(await world.start(script(asked, [say("never")])))
        assert (ended.state, ended.error and ended.error.reason) == (FAILED, "TOOL_FAILED")
        assert ended.error
        assert ended.error.metadata == {"tool": "bad"}
        assert await world.outcomes() == {"call_1": "unknown_outcome", "call_2": "mine"}
        assert later.calls == []


async def test_the_loop_is_cut_after_so_many_engine_calls() -> None:
    look = Gadget("look")
    async with AgentWorld(look).at_work() as world:
        overrides = Overrides(InferenceConfig(iterations_max=3))
        ended = await world.wait(await world.start(script([call("look")]), overrides=overrides))
        assert (ended.state, ended.finish_class) == (SUCCEEDED, FinishClass.MAX_ITERATIONS)
        assert len(look.calls) == 3
        assert len(await world.outcomes()) == 3
        following = await world.wait(await world.start(script([say("so far so good")]), text=""))
        assert following.finish_class is FinishClass.COMPLETED


async def test_without_any_tool_a_call_is_left_to_the_client() -> None:
    async with AgentWorld().at_work() as world:
        ended = await world.wait(await world.start(script([call("look", q=1)])))
        assert (ended.state, ended.finish_class) == (SUCCEEDED, FinishClass.TOOL_CALLS_PENDING)
        assert (await world.turn()).blocks[-1].kind == ToolCall("call_1", "look", '{"q": 1}')
        assert (await world.names(ended))[-4:] == ["ToolCallCompleted", "ToolDone", "TurnClosed", "InferenceFinished"]


MINE = Overrides(tools=(Tool("mine", "of the client"), Tool("sign", approval_required=True)))


async def test_the_client_answers_its_own_tools_once_those_of_the_server_are_done() -> None:
    look = Gadget("look")
    async with AgentWorld(look).at_work() as world:
        options = script([call("mine", x=1), call("look")], [say("thanks")])
        waits = await world.wait(await world.start(options, overrides=MINE))
        assert waits.state is InferenceState.WAITING_FOR_TOOLS
        assert await world.outcomes() == {"call_2": "{}"}
        assert (await world.events(waits))[-1].payload == ToolsRequired((ToolCall("call_1", "mine"),))
        assert (await world.submit(waits, ToolOutcome("call_1", '"42"')))[1] == ()
        ended = await world.wait(waits, WaitUntil.END)
        assert ended.state is SUCCEEDED
        assert ended.attempt == 0
        assert await world.outcomes() == {"call_1": '"42"', "call_2": "{}"}
        assert len(look.calls) == 1
        with pytest.raises(InferenceNotWaitingError):
            await world.submit(waits, ToolOutcome("call_1", '"43"'))


async def test_what_is_approved_is_executed_and_what_is_denied_is_not() -> None:
    erase = Gadget("erase", approval_required=True)
    async with AgentWorld(erase).at_work() as world:
        asked = [call("erase", n=1), call("erase", n=2), call("erase", n=3)]
        waits = await world.wait(await world.start(script(asked, [say("ok")])))
        names = tuple(ToolCall(f"call_{n}", "erase") for n in (1, 2, 3))
        assert (await world.events(waits))[-1].payload == ToolsRequired((), names)
        assert erase.calls == []
        changed = ToolOutcome("call_2", ToolApproval('{"n":22}'))
        assert (await world.submit(waits, ToolOutcome("call_1", ToolDenial("no")), changed))[1] == ("call_3",)
        assert erase.calls == []  # all calls of a batch are answered before it goes on
        await world.submit(waits, ToolOutcome("call_3", ToolApproval()))
        ended = await world.wait(waits, WaitUntil.END)
        assert ended.state is SUCCEEDED
        assert erase.calls == [{"n": 22}, {"n": 3}]
        assert await world.outcomes() == {"call_1": "denied", "call_2": '{"n": 22}', "call_3": '{"n": 3}'}


async def test_a_tool_of_the_client_may_need_approval_too() -> None:
    async with AgentWorld(Gadget("look")).at_work() as world:
        waits = await world.wait(await world.start(script([call("sign")], [say("signed")]), overrides=MINE))
        with pytest.raises(ToolCallNotPendingError):
            await world.submit(waits, ToolOutcome("call_1", "1"))
        assert (await world.submit(waits, ToolOutcome("call_1", ToolApproval())))[1] == ("call_1",)
        required = [e.payload for e in await world.events(waits) if isinstance(e.payload, ToolsRequired)]
        assert required == [
            ToolsRequired((), (ToolCall("call_1", "sign"),)),
            ToolsRequired((ToolCall("call_1", "sign"),)),
        ]
        await world.submit(waits, ToolOutcome("call_1", ToolError("no pen", "pen")))
        assert (await world.wait(waits, WaitUntil.END)).state is SUCCEEDED
        assert await world.outcomes() == {"call_1": "pen"}


async def test_two_submissions_at_once_are_taken_once() -> None:
    async with AgentWorld().at_work() as world:
        waits = await world.wait(await world.start(script([call("mine")], [say("ok")]), overrides=MINE))
        submissions = (world.submit(waits, ToolOutcome("call_1", f"{n}")) for n in range(8))
        results = await asyncio.gather(*submissions, return_exceptions=True)
        taken = [n for n, result in enumerate(results) if not isinstance(result, Exception)]
        assert len(taken) == 1
        assert sum(isinstance(result, InferenceNotWaitingError) for result in results) == 7
        assert (await world.wait(waits, WaitUntil.END)).state is SUCCEEDED
        assert await world.outcomes() == {"call_1": str(taken[0])}


async def test_a_submission_with_a_key_is_repeated_safely() -> None:
    async with AgentWorld().at_work() as world:
        waits = await world.wait(await world.start(script([call("mine"), call("mine")], [say("ok")]), overrides=MINE))

        async def submit(key: str, content: bytes, outcome: ToolOutcome) -> tuple[str, ...]:
            idempotency = Idempotency("SubmitToolResults", key, content)
            return (await world.runtime.submit(LOCAL, waits.inference_id, [outcome], idempotency))[1]

        first = ToolOutcome("call_1", "1")
        for _ in range(3):
            assert await submit("k", b"1", first) == ("call_2",)
        with pytest.raises(IdempotencyKeyReusedError):
            await submit("k", b"2", ToolOutcome("call_2", "2"))
        assert await submit("l", b"2", ToolOutcome("call_2", "2")) == ()
        ended = await world.wait(waits, WaitUntil.END)
        assert await submit("k", b"1", first) == ()  # also after the end
        assert await world.outcomes() == {"call_1": "1", "call_2": "2"}
        assert ended.state is SUCCEEDED


async def test_nobody_waits_for_a_silent_client_for_ever() -> None:
    world = AgentWorld(profile=_profile(answer_seconds_max=0.2))
    async with world.at_work():
        options = script([call("mine"), call("sign")], [say("never mind")])
        ended = await world.wait(await world.start(options, overrides=MINE), WaitUntil.END)
        assert ended.state is SUCCEEDED
        assert await world.outcomes() == {"call_1": "timeout", "call_2": "timeout"}
        [required] = [e.payload for e in await world.events(ended) if isinstance(e.payload, ToolsRequired)]
        assert required.deadline_time


async def test_a_wait_is_cancelled_and_what_was_answered_stays() -> None:
    async with AgentWorld().at_work() as world:
        waits = await world.wait(await world.start(script([call("mine"), call("mine")]), overrides=MINE))
        await world.submit(waits, ToolOutcome("call_2", "2"))
        ended = await world.runtime.cancel(LOCAL, waits.inference_id, "enough", is_session=False)
        assert ended.state is CANCELLED
        assert await world.outcomes() == {"call_2": "2"}
        following = await world.wait(await world.start(script([say("on")])))
        assert following.state is SUCCEEDED


async def test_a_cancel_stops_the_tool_and_the_loop() -> None:
    gate = Gate()
    async with AgentWorld(Gadget("slow", gate), Gadget("look")).at_work() as world:
        started = await world.start(script([call("look"), call("slow")], [say("never")]))
        await gate.begun.wait()
        await world.runtime.cancel(LOCAL, started.inference_id, "", is_session=False)
        ended = await world.wait(started)
        assert ended.state is CANCELLED
        assert await world.outcomes() == {"call_1": "{}", "call_2": "unknown_outcome"}
        assert (await world.names(ended))[-4:] == ["ToolResult", "ToolDone", "TurnClosed", "InferenceFinished"]
        assert world.abandoned == set()


STEP = StepMode()


async def test_step_mode_pauses_after_each_step() -> None:
    async with AgentWorld(Gadget("look")).at_work() as world:
        first = await world.wait(await world.start(script([say("hi")])))
        assert first.state is SUCCEEDED
        await world.runtime.set_step_mode(LOCAL, "s", STEP)
        inference = await world.wait(await world.start(script([call("look")], [say("done")])))
        phases: list[str] = []
        while inference.state is InferenceState.PAUSED:
            [(paused, pause)] = (await world.runtime.list_pauses(LOCAL, "s", 10, None)).items
            assert paused.inference_id == inference.inference_id
            phases.append(pause.phase)
            await world.runtime.release_pause(LOCAL, pause.id, PauseAction.STEP)
            inference = await world.wait(inference)
        assert phases == ["after_inference", "after_tools", "after_inference"]
        assert inference.state is SUCCEEDED
        assert (await world.names(inference)).count("DebuggerResumed") == 3
        assert await world.outcomes() == {"call_1": "{}"}


async def test_continue_goes_on_without_further_pauses_and_abort_ends() -> None:
    async with AgentWorld(Gadget("look")).at_work() as world:
        await world.runtime.create_session(LOCAL, NewSession("s"), None)
        await world.runtime.set_step_mode(LOCAL, "s", STEP)
        options = script([call("look")], [say("done")])
        inference = await world.wait(await world.start(options))
        [(_, pause)] = (await world.runtime.list_pauses(LOCAL, "", 10, None)).items
        await world.runtime.release_pause(LOCAL, pause.id, PauseAction.CONTINUE)
        assert (await world.wait(inference)).state is SUCCEEDED
        inference = await world.wait(await world.start(options))
        [(_, pause)] = (await world.runtime.list_pauses(LOCAL, "", 10, None)).items
        ended = await world.runtime.release_pause(LOCAL, pause.id, PauseAction.ABORT)
        assert (ended.state, ended.error and ended.error.reason) == (FAILED, "STEP_ABORTED")


async def test_turning_step_mode_off_releases_what_is_paused() -> None:
    async with AgentWorld(Gadget("look")).at_work() as world:
        await world.runtime.create_session(LOCAL, NewSession("s"), None)
        await world.runtime.set_step_mode(LOCAL, "s", STEP)
        inference = await world.wait(await world.start(script([call("look")], [say("done")])))
        assert inference.state is InferenceState.PAUSED
        await world.runtime.set_step_mode(LOCAL, "s", None)
        assert (await world.wait(inference)).state is SUCCEEDED


async def test_output_that_breaks_the_schema_is_sent_back_once() -> None:
    schema = Overrides(output_schema='{"type":"object","required":["a"]}')
    async with AgentWorld().at_work() as world:
        ended = await world.wait(await world.start(script([say("no json")], [say('{"a":1}')]), overrides=schema))
        assert ended.state is SUCCEEDED
        kinds = [block.kind for block in (await world.turn()).blocks]
        assert [type(kind) for kind in kinds] == [User, LlmText, User, LlmText]
        assert "ErrorRaised" in await world.names(ended)
        ended = await world.wait(await world.start(script([say("{}")], [say('{"b":1}')]), overrides=schema))
        assert (ended.state, ended.error and ended.error.reason) == (FAILED, "OUTPUT_INVALID")
        assert ended.error
        assert '"a"' in ended.error.metadata["violation"]
        assert (await world.turn()).blocks[-1].kind == LlmText('{"b":1}')  # the raw text is kept


@pytest.mark.parametrize("args", ['{"q": ', "[1]", '{"q": NaN}'])
async def test_a_call_whose_arguments_cannot_be_read_is_sent_back(args: str) -> None:
    look = Gadget("look")
    broken = {"toolCall": {"name": "look", "args": args}}
    async with AgentWorld(look).at_work() as world:
        ended = await world.wait(await world.start(script([broken], [call("look", q=1)], [say("done")])))
        assert (ended.state, ended.finish_class) == (SUCCEEDED, FinishClass.COMPLETED)
        assert look.calls == [{"q": 1}]
        kinds = [type(block.kind) for block in (await world.turn()).blocks]
        assert kinds == [User, ToolCall, User, ToolCall, ToolUse, LlmText]
        limit = Overrides(InferenceConfig(iterations_max=3))
        ended = await world.wait(await world.start(script([broken]), overrides=limit))  # it never learns
        assert (ended.state, ended.finish_class) == (SUCCEEDED, FinishClass.MAX_ITERATIONS)


async def test_a_call_that_was_cut_at_max_output_tokens_is_not_sent_back() -> None:
    cut = {"steps": [{"toolCall": {"name": "look", "args": '{"q'}}], "finishClass": "FINISH_CLASS_MAX_TOKENS"}
    async with AgentWorld(Gadget("look")).at_work() as world:
        ended = await world.wait(await world.start(json.dumps({"script": {"calls": [cut]}})))
        assert (ended.state, ended.finish_class) == (SUCCEEDED, FinishClass.MAX_TOKENS)


async def test_how_often_output_is_sent_back_is_the_profiles_to_say() -> None:
    schema = Overrides(output_schema='{"type":"integer"}')
    world = AgentWorld(profile=replace(_profile(), output_repairs_max=0))
    async with world.at_work():
        ended = await world.wait(await world.start(script([say("x")], [say("1")]), overrides=schema))
        assert ended.state is FAILED
        ended = await world.wait(await world.start(script([say(" 1 ")]), overrides=schema))
        assert ended.state is SUCCEEDED


async def test_output_with_half_of_a_surrogate_pair_is_sent_back() -> None:
    schema = Overrides(output_schema='{"type":"object"}')
    async with AgentWorld().at_work() as world:
        said = [say('{"a":"\\ud83d"}')], [say('{"a":"\\ud83d\\ude00"}')]
        ended = await world.wait(await world.start(script(*said), overrides=schema))
        assert ended.state is SUCCEEDED
        assert len((await world.turn()).blocks) == 4


async def test_output_is_not_sent_back_when_no_engine_call_is_left() -> None:
    schema = Overrides(InferenceConfig(iterations_max=2), output_schema='{"type":"integer"}')
    async with AgentWorld(Gadget("look")).at_work() as world:
        ended = await world.wait(await world.start(script([call("look")], [say("x")], [say("1")]), overrides=schema))
        assert (ended.state, ended.error and ended.error.reason) == (FAILED, "OUTPUT_INVALID")
        assert (await world.turn()).blocks[-1].kind == LlmText("x")


async def test_snapshots_tell_the_turn_between_the_phases() -> None:
    async with AgentWorld(Gadget("look")).at_work() as world:
        overrides = Overrides(record_snapshots=True)
        ended = await world.wait(await world.start(script([call("look")], [say("done")]), overrides=overrides))
        page = await world.store.list_turn_snapshots(LOCAL, ended.inference_id, None, 100, None)
        marks = [(each.mark.phase, each.mark.iteration, len(each.turn.blocks)) for each in page.items]
        assert marks == [
            (SnapshotPhase.PRE_INFERENCE, 1, 1),
            (SnapshotPhase.POST_INFERENCE, 1, 2),
            (SnapshotPhase.POST_TOOLS, 1, 3),
            (SnapshotPhase.PRE_INFERENCE, 2, 3),
            (SnapshotPhase.POST_INFERENCE, 2, 4),
            (SnapshotPhase.FINAL, 2, 4),
        ]

"""What every server tool keeps, whatever it is made of.

A subclass has a fixture `subject`: a tool, arguments that satisfy its schema, arguments with which it hangs until it is
cancelled, and arguments that satisfy the schema and make it fail. None: it has no such arguments.
"""

import asyncio
import json
import re
from dataclasses import dataclass

import pytest

from turnwire_server.domain.tool import ToolCall, ToolPlacement
from turnwire_server.tools.base import Invocation, ServerTool, ToolFailure
from turnwire_server.tools.schema import NO_ARGUMENTS, compile_schema

# What the executor waits before it abandons a tool; the tool's share of that is less.
STOP_SECONDS_MAX = 0.9


@dataclass(frozen=True, slots=True)
class Subject:
    """A tool, and what to call it with. `began` is set when a call that hangs is under way."""

    tool: ServerTool
    args: str = "{}"
    hanging: str | None = None
    failing: str | None = None
    began: asyncio.Event | None = None


def invocation(subject: Subject, args: str) -> Invocation:
    """Return a call of the subject."""
    return Invocation("session", "inference", ToolCall("call", subject.tool.definition.tool.name, args))


class ToolSuite:
    """The promises of tools/base.py."""

    async def test_it_is_one_of_the_contract_and_stays_what_it_is(self, subject: Subject) -> None:
        before = subject.tool.definition
        offered = before.tool
        assert re.fullmatch(r"[A-Za-z0-9_-]{1,64}", offered.name)
        assert len(offered.description.encode()) <= 16_384
        assert offered.placement is ToolPlacement.SERVER
        schema = compile_schema(offered.input_schema or NO_ARGUMENTS)
        for args in (subject.args, subject.hanging, subject.failing):
            assert args is None or schema.violation(args) == ""
        assert before.timeout_seconds is None or before.timeout_seconds > 0
        await subject.tool.run(invocation(subject, subject.args))
        assert subject.tool.definition == before

    async def test_a_result_is_json(self, subject: Subject) -> None:
        json.loads(await subject.tool.run(invocation(subject, subject.args)))

    async def test_any_number_of_calls_run_at_once(self, subject: Subject) -> None:
        calls = (subject.tool.run(invocation(subject, subject.args)) for _ in range(50))
        for result in await asyncio.gather(*calls):
            json.loads(result)

    async def test_a_failure_says_what_went_wrong(self, subject: Subject) -> None:
        if subject.failing is None:
            pytest.skip("it has no arguments with which it fails")
        with pytest.raises(ToolFailure) as failed:
            await subject.tool.run(invocation(subject, subject.failing))
        assert failed.value.message

    async def test_cancelling_stops_a_call_and_no_other(self, subject: Subject) -> None:
        if subject.hanging is None:
            pytest.skip("it has no arguments with which it hangs")
        calls = [asyncio.create_task(subject.tool.run(invocation(subject, subject.hanging))) for _ in range(2)]
        if subject.began:
            await subject.began.wait()
        await subject.tool.run(invocation(subject, subject.args))
        calls[0].cancel()
        await asyncio.wait({calls[0]}, timeout=STOP_SECONDS_MAX)
        assert calls[0].cancelled()
        assert not calls[1].done()
        json.loads(await subject.tool.run(invocation(subject, subject.args)))
        calls[1].cancel()
        await asyncio.wait({calls[1]}, timeout=STOP_SECONDS_MAX)
        assert calls[1].cancelled()

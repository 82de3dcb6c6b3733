"""A server that does what the contract permits and ours does not passes as well."""

from collections.abc import Iterable, Sequence
from typing import Any

from turnwire.testing.v1.conformance_pb2 import Step
from turnwire_conformance.case import Run, load_own_runs
from turnwire_conformance.report import Outcome
from turnwire_conformance.runner import Target, run_all
from violations.exchange import Plant
from violations.kinds import sends
from violations.proxy import Proxy
from violations.wait import with_timeout

# The cases that look at how long a wait holds. A server can hold that many.
HOLDING = {
    "wait/it-ends-500-ms-before-the-deadline-of-the-client",
    "wait/it-holds-for-its-timeout[1.5s]",
    "wait/it-holds-for-its-timeout[1.500000001s]",
    "wait/it-waits-for-one-in-line-too",
    "wait/no-wait-holds-for-more-than-50-s",
    "wait/until-the-end-it-holds-while-it-is-paused",
    "wait/until-the-end-it-holds-while-the-client-has-to-act",
    "wait/without-a-timeout-it-holds-for-20-s",
}


async def failed(address: str, runs: Sequence[Run], *plants: Plant) -> dict[str, str]:
    """Run cases against a server with plants before it; return which fail, and why."""

    def name(outcome: Outcome) -> str:
        return f"{outcome.topic}/{outcome.name}"

    async with Proxy(address, plants) as proxy:
        outcomes = await run_all(Target(proxy.address), runs, lambda _: None)
    assert proxy.defects == []
    assert len(outcomes) == len(runs) > 0
    return {name(each): each.detail for each in outcomes if each.status != "passed"}


def waits(steps: Iterable[Step]) -> bool:
    """Whether steps call Wait."""
    return any(
        step.call.rpc == "InferenceService.Wait" or any(waits(branch.steps) for branch in step.together.branches)
        for step in steps
    )


def holds(request: Any) -> bool:
    """Whether a wait asks to be held."""
    return not request.HasField("timeout") or request.timeout.ToNanoseconds() > 0


async def test_no_wait_is_held(server_address: str) -> None:
    runs = [run for run in load_own_runs() if not run.arrangement and waits(run.steps)]
    assert set(await failed(server_address, runs, sends("Wait", with_timeout(0), when=holds))) == HOLDING

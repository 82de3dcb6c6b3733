"""Whether the cases find a violation: those that cite what it breaks run against a server that it is planted into."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cache

from support.citations import Cited
from support.statements import Statement, contract_statements
from turnwire_conformance.case import Run
from turnwire_conformance.limits import Limits
from turnwire_conformance.report import Outcome, Place
from turnwire_conformance.runner import Target, run_all, run_case
from violations.exchange import Plant
from violations.proxy import Proxy
from violations.violation import Violation

TRIES = 2
"""How often a violation is tried: on a busy machine, what is too early or too late may look as it should."""

IMPATIENT = Limits(deadline=11.0, again=5.0, finish=5.0, read=5.0, settle=5.0, call=5.0, case=60.0)
"""How long a trial waits for what does not come: most violations are waited for."""

QUICK_SECONDS = 1.5
"""A case that takes longer where nothing is planted has all the time that it needs in a trial as well."""


PATIENCE_SECONDS = 4.5
"""A case that failed sooner had the time that it needs: no limit is shorter."""

PROMISES_FILE = "turnwire/v1/event.proto"
PROMISES_OF_STREAMS = Cited(
    "turnwire.v1.InferenceService.SubscribeEvents", "The seven promises of event.proto hold for every stream."
)

DEFECTS = frozenset[Place]({"case", "runner", "connection"})


class DefectiveCaseError(Exception):
    """A case that cannot be run, or a runner that cannot run it: nothing is proved by that."""


class DefectivePlantError(Exception):
    """A plant that raises what is no refusal: whatever fails then, fails because of that."""


def _locks() -> Mapping[str, asyncio.Lock]:
    return defaultdict(asyncio.Lock)


@dataclass(frozen=True, slots=True)
class Court:
    """What trials have in common: the addresses of real servers by their arrangements, and the cases.

    `seconds` are how long cases took where nothing is planted, as far as it is known: quick ones are tried first.
    """

    servers: Mapping[str, str]
    runs: Sequence[Run]
    seconds: dict[str, float] = field(default_factory=dict[str, float])
    _alone: Mapping[str, asyncio.Lock] = field(default_factory=_locks)
    _cited: dict[Statement, list[Run]] = field(default_factory=dict[Statement, list[Run]])

    async def keep(self, arrangement: str) -> Sequence[Outcome]:
        """Run all cases of an arrangement against its reference server, without a violation."""
        runs = [run for run in self.runs if run.arrangement == arrangement]
        async with self._reference(arrangement) as target:
            outcomes = await run_all(target, runs, lambda _: None)
        self.seconds.update({f"{each.topic}/{each.name}": each.seconds for each in outcomes})
        return outcomes

    @asynccontextmanager
    async def _reference(self, arrangement: str, plants: Sequence[Plant] = ()) -> AsyncGenerator[Target, None]:
        """A reference server. One in an arrangement has little of something, and is given to one after the other."""
        alone = self._alone[arrangement] if arrangement else nullcontext()
        async with alone, Proxy(self.servers[arrangement], plants) as proxy:
            yield Target(proxy.address, arrangement=arrangement)
        if proxy.defects:
            raise DefectivePlantError(proxy.defects[0])

    async def overlooked(self, violation: Violation) -> list[str]:
        """Return what a violation breaks without a case that finds it, with the reason. Empty: all is found.

        Errors: DefectivePlantError; DefectiveCaseError.
        """
        found: list[str] = []
        for cited in violation.breaks:
            runs = self._citing(cited)
            if not runs:
                found.append(f"no case cites {cited}")
            elif not await self._is_found(violation, cited, runs * TRIES):
                names = ", ".join(run.full_name for run in runs)
                found.append(f"{cited}\n    cited by {names}: none fails because of that")
        return found

    def _citing(self, cited: Cited) -> list[Run]:
        """Return the cases that cite a statement, the quickest first."""
        if not self._cited:
            self._cited.update(runs_by_statement(self.runs))
        statement = statement_of(cited)
        found = self._cited.get(statement, []) if statement else []
        return sorted(found, key=lambda run: self.seconds.get(run.full_name, len(run.steps)))

    async def _is_found(self, violation: Violation, cited: Cited, runs: Sequence[Run]) -> bool:
        for arrangement in dict.fromkeys(run.arrangement for run in runs):
            own = [run for run in runs if run.arrangement == arrangement]
            if await self._fails(arrangement, violation.plants, cited, own):
                return True
        return False

    async def _fails(self, arrangement: str, plants: Sequence[Plant], cited: Cited, runs: Sequence[Run]) -> bool:
        for run in runs:
            async with self._reference(arrangement, plants) as target:
                outcome = await run_case(self._limited(target, run), run)
            if outcome.status == "failed" and await self._is_convicted(arrangement, cited, run, outcome):
                return True
        return False

    async def _is_convicted(self, arrangement: str, cited: Cited, run: Run, outcome: Outcome) -> bool:
        """Whether a case failed because of the violation. One that had too little time fails without it as well.

        What has to hold after every case proves the promises, and what a case cites only if its steps do.

        Errors: DefectiveCaseError.
        """
        if outcome.failed_in in DEFECTS:
            msg = f"{run.full_name}: {outcome.detail}"
            raise DefectiveCaseError(msg)
        if outcome.failed_in == "epilogue" and not is_promise(cited):
            return False
        if outcome.seconds < PATIENCE_SECONDS:
            return True
        async with self._reference(arrangement) as target:
            return (await run_case(self._limited(target, run), run)).status == "passed"

    def _limited(self, target: Target, run: Run) -> Target:
        is_quick = self.seconds.get(run.full_name, 0.0) < QUICK_SECONDS
        return replace(target, limits=IMPATIENT) if is_quick else target


def is_promise(cited: Cited) -> bool:
    """Whether a statement is of the promises of event.proto, which have to hold after every case."""
    return cited.element == PROMISES_FILE or cited == PROMISES_OF_STREAMS


@cache
def statement_of(cited: Cited) -> Statement | None:
    """Return the statement that is cited; None for what is none, or might be more than one."""
    found = cited.statements(contract_statements())
    return found[0] if len(found) == 1 else None


def runs_by_statement(runs: Sequence[Run]) -> Mapping[Statement, list[Run]]:
    """Return the cases that cite each statement."""
    found: dict[Statement, list[Run]] = {}
    for run in runs:
        cited = {statement_of(Cited(each.element, each.says)) for each in run.proves}
        for statement in filter(None, cited):
            found.setdefault(statement, []).append(run)
    return found

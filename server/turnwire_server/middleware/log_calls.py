"""The middleware log_calls: one line per engine call, and on demand a log event. Never with what was said."""

import asyncio
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict

from pydantic import BaseModel, ConfigDict

from turnwire_server.domain.clock import Clock
from turnwire_server.domain.errors import TurnwireError
from turnwire_server.domain.event import Log
from turnwire_server.engines.base import Emit, EngineCall, EngineResult
from turnwire_server.middleware.base import Proceed, Scope
from turnwire_server.telemetry.logs import Level, logger
from turnwire_server.tools.base import ServerTool

_LEVELS = logging.getLevelNamesMapping()

log = logger()


class LogCallsSettings(BaseModel):
    """The settings of log_calls. With `event` each line is told to the watchers as well."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    level: Level = "info"
    event: bool = False


class LogCalls:
    """See Middleware."""

    name = "log_calls"
    tools: Sequence[ServerTool] = ()

    def __init__(self, settings: LogCallsSettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock

    async def call(self, call: EngineCall, emit: Emit, scope: Scope, proceed: Proceed) -> EngineResult:
        """Log how the call ended, whichever way."""
        begin = self._clock.monotonic()
        try:
            result = await proceed(call, emit)
        except asyncio.CancelledError:
            self._log(call, self._facts(call, begin, "cancelled"))  # and no event: the end of the inference tells it
            raise
        except Exception as error:
            reason = error.reason if isinstance(error, TurnwireError) else type(error).__name__
            await self._tell(call, scope, self._facts(call, begin, "failed") | {"reason": reason})
            raise
        facts = {"finish_class": result.finish_class.name, "model": result.model, **asdict(result.usage)}
        await self._tell(call, scope, self._facts(call, begin, "finished") | facts)
        return result

    async def aclose(self) -> None:
        """There is nothing to give back."""

    def _facts(self, call: EngineCall, begin: float, outcome: str) -> dict[str, str | int | float]:
        return {
            "iteration": call.iteration,
            "block_count": len(call.blocks),
            "tool_count": len(call.tools),
            "outcome": outcome,
            "seconds": round(self._clock.monotonic() - begin, 3),
        }

    def _log(self, call: EngineCall, facts: dict[str, str | int | float]) -> None:
        identities = {"session_id": call.session_id, "inference_id": call.inference_id}
        log.log(_LEVELS[self._settings.level.upper()], "engine call", **identities, **facts)

    async def _tell(self, call: EngineCall, scope: Scope, facts: dict[str, str | int | float]) -> None:
        self._log(call, facts)
        if self._settings.event:
            fields = {name: json.dumps(fact) for name, fact in facts.items()}
            await scope.tell(Log(self._settings.level, "engine call", fields))

"""One engine call of an attempt: what is offered, what the engine is shown, and what it says, told as events."""

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import cast

from turnwire_server.domain.errors import EngineOptionsInvalidError
from turnwire_server.domain.event import EngineCallFinished, EngineCallStarted, Payload
from turnwire_server.domain.ids import Mint
from turnwire_server.domain.inference import FinishClass
from turnwire_server.domain.tool import ToolCall, ToolPlacement
from turnwire_server.engines.base import Emit, EngineCall, EngineChunk, EngineResult
from turnwire_server.middleware.chain import chain
from turnwire_server.runtime.assembly import Assembly
from turnwire_server.runtime.attempt_record import AttemptRecord
from turnwire_server.runtime.checkpoint import PlannedCall
from turnwire_server.runtime.engine_view import engine_view
from turnwire_server.runtime.output import Output
from turnwire_server.runtime.tool_plan import Offer, config_of_call, plan_calls, plan_offer
from turnwire_server.stores.lease import Claim
from turnwire_server.tools.base import ServerTool

# The finish classes that an engine call can return with.
_PRODUCED = frozenset(
    {
        FinishClass.COMPLETED,
        FinishClass.MAX_TOKENS,
        FinishClass.MAX_ITERATIONS,
        FinishClass.TOOL_CALLS_PENDING,
    }
)

Tell = Callable[[Payload, str], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Said:
    """How one engine call ended, and what becomes of the tools that it asked for."""

    finish_class: FinishClass
    calls: tuple[PlannedCall, ...]


class CallScope:
    """The Scope of one engine call: what middleware sets is the turn's once the call has ended well."""

    def __init__(self, data: Mapping[str, str], tell: Tell, mint: Mint) -> None:
        self.mint = mint
        self._data = dict(data)
        self._tell = tell

    @property
    def data(self) -> dict[str, str]:
        """See Scope."""
        return dict(self._data)

    def set_data(self, key: str, text: str | None) -> None:
        """See Scope."""
        if text is None:
            self._data.pop(key, None)
        else:
            self._data[key] = text

    async def tell(self, payload: Payload, entity: str = "") -> None:
        """See Scope."""
        await self._tell(payload, entity)


class EngineStep:
    """One engine call, through the middleware of the profile. `tell` tells an event and waits for room.

    `hear` is called with each sign of life of the engine.
    """

    def __init__(
        self, claim: Claim, assembly: Assembly, record: AttemptRecord, mint: Mint, tell: Tell, hear: Callable[[], None]
    ) -> None:
        self._claim = claim
        self._assembly = assembly
        self._record = record
        self._mint = mint
        self._tell = tell
        self._hear = hear
        self._offered = Offer()
        self.tools: Mapping[str, ServerTool] | None = None  # those of the server, once they were listed

    async def run(self) -> Said:
        """Make the call.

        Errors: EngineError, MiddlewareFailedError, ToolsUnavailableError; whatever else an engine raises as a defect.
        """
        own = self.tools = await self._assembly.registry.list_tools()
        definitions = {name: tool.definition for name, tool in own.items()}
        offer = plan_offer(definitions, self._claim.overrides.tools, self._assembly.profile.tool_policy)
        iteration = self._record.at.iteration + 1
        call = self._call(offer, iteration)
        entity, model = self._mint(), call.config.model
        await self._tell(EngineCallStarted(iteration, self._claim.engine, model), entity)
        scope = CallScope(self._record.data, self._tell, self._mint)
        output = Output(
            self._tell,
            self._record.fold,
            self._mint,
            self._placement_of,
            {block.kind.id for block in self._record.produced if isinstance(block.kind, ToolCall)},
            ends_calls=lambda: not offer.tools,
        )
        proceed = chain(self._assembly.middleware, scope, self._ask(offer))
        result = await proceed(call, self._listen(output))
        await output.end()
        finish_class = self._finish_class(result, output)
        await self._tell(EngineCallFinished(result.usage, finish_class, result.stop_reason, result.model), entity)
        self._record.set_data(scope.data)
        calls = self._record.fold.calls() if offer.tools else ()
        return Said(
            finish_class, plan_calls(calls, self._offered, {*definitions, *offer.tools}, call.config.tool_choice)
        )

    def _call(self, offer: Offer, iteration: int) -> EngineCall:
        inference, overrides = self._claim.inference, self._claim.overrides
        return EngineCall(
            session_id=inference.session_id,
            inference_id=inference.inference_id,
            iteration=iteration,
            blocks=self._record.blocks,
            config=config_of_call(inference.config, iteration),
            tools=tuple(offer.tools.values()),
            output_schema=overrides.output_schema,
            options=self._options(),
        )

    def _ask(self, offer: Offer) -> Callable[[EngineCall, Emit], Awaitable[EngineResult]]:
        """Return what is inside all middleware: the engine, which is never shown a call that nobody answered."""

        async def ask(call: EngineCall, emit: Emit) -> EngineResult:
            self._offered = offer.narrowed({tool.name for tool in call.tools})
            try:
                return await self._assembly.engine.run(replace(call, blocks=engine_view(call.blocks)), emit)
            except (SystemExit, KeyboardInterrupt) as error:  # a defect of the engine does not end the server
                msg = f"the engine raised {type(error).__name__}"
                raise RuntimeError(msg) from error

        return ask

    def _listen(self, output: Output) -> Emit:
        """Return what the engine calls: each piece is a sign of life, also one that is not told."""

        async def emit(chunk: EngineChunk) -> None:
            self._hear()
            await output.take(chunk)

        return emit

    def _placement_of(self, name: str) -> ToolPlacement:
        tool = self._offered.tools.get(name)
        return tool.placement if tool else ToolPlacement.UNSPECIFIED

    def _finish_class(self, result: EngineResult, output: Output) -> FinishClass:
        finish_class = FinishClass.TOOL_CALLS_PENDING if output.has_tool_calls else result.finish_class
        if finish_class not in _PRODUCED:
            msg = f"the engine returned with the finish class {finish_class.name}"
            raise RuntimeError(msg)
        return finish_class

    def _options(self) -> dict[str, object]:
        text = self._claim.overrides.engine_options
        try:
            own: object = json.loads(text) if text else {}
        except (ValueError, RecursionError) as error:  # JSON that the contract allows and Python does not read
            msg = f"engine_options cannot be read: {error}"
            raise EngineOptionsInvalidError(msg, engine=self._claim.engine) from None
        if not isinstance(own, dict):
            raise EngineOptionsInvalidError("engine_options must be one JSON object", engine=self._claim.engine)
        return {**self._assembly.profile.engine_options, **cast("dict[str, object]", own)}

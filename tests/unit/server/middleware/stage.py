"""What the tests of middleware stand on: a scripted engine behind a chain, and a scope that records."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from turnwire_server.domain.event import Payload
from turnwire_server.domain.inference import InferenceConfig
from turnwire_server.domain.tool import Tool
from turnwire_server.domain.turn import Block, System, User
from turnwire_server.engines.base import Emit, EngineCall, EngineChunk, EngineResult, PartDelta
from turnwire_server.engines.scripted import ScriptedEngine
from turnwire_server.middleware.base import Middleware, Proceed
from turnwire_server.middleware.chain import chain

USER = Block("b1", User("hello"), "user")


class RecordingScope:
    """A Scope that keeps what middleware does with it."""

    def __init__(self, data: Mapping[str, str] | None = None) -> None:
        self.data: dict[str, str] = dict(data or {})
        self.told: list[tuple[Payload, str]] = []
        self._minted = 0

    @property
    def payloads(self) -> list[Payload]:
        """What was told, without the entities."""
        return [payload for payload, _ in self.told]

    def set_data(self, key: str, text: str | None) -> None:
        """See Scope."""
        if text is None:
            self.data.pop(key, None)
        else:
            self.data[key] = text

    async def tell(self, payload: Payload, entity: str = "") -> None:
        """See Scope."""
        self.told.append((payload, entity))

    def mint(self) -> str:
        """See Scope."""
        self._minted += 1
        return f"e{self._minted}"


def said(*texts: str, delta_length: int = 16, kind: str = "text", **last: object) -> dict[str, object]:
    """Return the options for one engine call that says these texts; `last` is one more step."""
    steps: list[dict[str, object]] = [{kind: {"text": text}} for text in texts]
    return {"script": {"deltaLength": delta_length, "calls": [{"steps": [*steps, last] if last else steps}]}}


def engine_call(
    options: Mapping[str, object] | None = None,
    blocks: Sequence[Block] = (USER,),
    tools: Sequence[Tool] = (),
    config: InferenceConfig | None = None,
    iteration: int = 1,
) -> EngineCall:
    """Return an engine call."""
    return EngineCall(
        "s",
        "i",
        iteration,
        tuple(blocks),
        config=config or InferenceConfig(),
        tools=tuple(tools),
        options=dict(options or said("hello")),
    )


@dataclass(slots=True)
class Play:
    """What one or more engine calls through a chain did."""

    scope: RecordingScope = field(default_factory=RecordingScope)
    seen: list[EngineCall] = field(default_factory=list[EngineCall])
    chunks: list[EngineChunk] = field(default_factory=list[EngineChunk])

    @property
    def text(self) -> str:
        """All that was said."""
        return "".join(chunk.delta for chunk in self.chunks if isinstance(chunk, PartDelta))

    @property
    def instructions(self) -> list[str]:
        """The system blocks that the engine saw last."""
        return [block.kind.text for block in self.seen[-1].blocks if isinstance(block.kind, System)]

    async def emit(self, chunk: EngineChunk) -> None:
        """See Emit."""
        self.chunks.append(chunk)

    async def engine(self, call: EngineCall, emit: Emit) -> EngineResult:
        """Play the script of the call. It is a Proceed."""
        self.seen.append(call)
        return await ScriptedEngine().run(call, emit)

    async def run(
        self, middleware: Middleware | Sequence[Middleware], call: EngineCall, engine: Proceed | None = None
    ) -> EngineResult:
        """Make one engine call."""
        links = middleware if isinstance(middleware, Sequence) else [middleware]
        return await chain(links, self.scope, engine or self.engine)(call, self.emit)

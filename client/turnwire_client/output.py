"""What a model has said so far, folded from events: with void output dropped, and complete where a final omits it.

    output = Output()
    async for event in handle.events():
        output.take(event)
        print(output.text)

It may be shown at any moment; what is shown later may have less, when an attempt was lost.
"""

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from turnwire.v1.event_pb2 import Event, LlmDelta, LlmFinal, LlmThinkingDelta, LlmThinkingFinal
from turnwire_client._errors import ProtocolError

Kind: TypeAlias = Literal["text", "reasoning"]

# The events of each kind of block, by what they do: field names of Event.payload.
_STARTS: dict[str, Kind] = {"llm_start": "text", "llm_thinking_start": "reasoning"}
_DELTAS: dict[str, Kind] = {"llm_delta": "text", "llm_thinking_delta": "reasoning"}
_FINALS: dict[str, Kind] = {"llm_final": "text", "llm_thinking_final": "reasoning"}


@dataclass(slots=True)
class _Block:
    kind: Kind
    begun: int
    # The deltas that came, each with its sequence. They stay beside the final: a loss may void that one alone.
    pieces: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])
    # Where the first of them begins, in bytes of UTF-8: above 0 when the events began in the middle of the block.
    first_offset: int = 0
    offset: int = 0
    final: tuple[int, str] | None = None

    @property
    def text(self) -> str:
        return "".join(piece for _, piece in self.pieces) if self.final is None else self.final[1]


class Output:
    """The text and the reasoning that events amount to, of one inference or of several.

    Give it every event that a stream hands out, once and in order; a stream that begins later, at the cursor of the one
    before, goes on with the same Output. Where a snapshot tells everything anew (`EventStream.on_snapshot`), take a new
    one. It holds what the model has said, which the server bounds for each engine call.
    """

    def __init__(self) -> None:
        self._blocks: dict[tuple[str, str], _Block] = {}

    @property
    def text(self) -> str:
        """What the model has said, all blocks joined."""
        return "".join(self.blocks("text"))

    @property
    def reasoning(self) -> str:
        """What the model has thought, all blocks joined."""
        return "".join(self.blocks("reasoning"))

    def blocks(self, kind: Kind, inference_id: str = "") -> list[str]:
        """Each block of a kind, in the order in which they began; of one inference, or of all."""
        return [
            block.text
            for (inference, _), block in self._blocks.items()
            if block.kind == kind and inference_id in ("", inference)
        ]

    def take(self, event: Event) -> None:
        """Adds an event; one that adds nothing is fine.

        Raises ProtocolError when a delta does not continue its block, or a final does not agree with its deltas.
        """
        payload = event.WhichOneof("payload") or ""
        if payload in _STARTS:
            self._block(event, _STARTS[payload])
        elif payload in _DELTAS:
            self._take_delta(event, self._block(event, _DELTAS[payload]), getattr(event, payload))
        elif payload in _FINALS:
            self._take_final(event, self._block(event, _FINALS[payload]), getattr(event, payload))
        elif payload == "inference_attempt_lost":
            self._drop(event.inference_id, event.inference_attempt_lost.superseded_after_sequence)

    def _block(self, event: Event, kind: Kind) -> _Block:
        found = self._blocks.get((event.inference_id, event.entity))
        if found is None:
            found = self._blocks[event.inference_id, event.entity] = _Block(kind, event.sequence)
        return found

    def _take_delta(self, event: Event, block: _Block, delta: LlmDelta | LlmThinkingDelta) -> None:
        if block.begun == event.sequence:  # its llm.start came before the first event that was taken
            block.first_offset = block.offset = delta.offset
        if delta.offset != block.offset:
            raise ProtocolError(f"event {event.sequence} has the offset {delta.offset}, not {block.offset}")
        block.pieces.append((event.sequence, delta.delta))
        block.offset += len(delta.delta.encode())

    def _take_final(self, event: Event, block: _Block, final: LlmFinal | LlmThinkingFinal) -> None:
        if final.text_omitted:
            if block.begun < event.sequence and block.offset != final.text_bytes:
                raise ProtocolError(f"event {event.sequence} ends {final.text_bytes} bytes, and {block.offset} came")
            return
        # Without a delta there is nothing to compare: a snapshot leaves out those that a final stands for.
        came = "".join(piece for _, piece in block.pieces).encode()
        if block.pieces and final.text.encode()[block.first_offset :] != came:
            raise ProtocolError(f"event {event.sequence} has a text that its deltas do not amount to")
        block.final = event.sequence, final.text

    def _drop(self, inference_id: str, holds_through: int) -> None:
        """What events after this sequence told of the inference is void."""
        for (inference, entity), block in list(self._blocks.items()):
            if inference != inference_id:
                continue
            if block.begun > holds_through:
                del self._blocks[inference, entity]
                continue
            block.pieces = [(sequence, piece) for sequence, piece in block.pieces if sequence <= holds_through]
            block.offset = block.first_offset + sum(len(piece.encode()) for _, piece in block.pieces)
            if block.final is not None and block.final[0] > holds_through:
                block.final = None

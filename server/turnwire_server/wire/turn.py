"""Turns and blocks, to and from protobuf."""

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from turnwire.v1 import turn_pb2 as pb
from turnwire.v1.tool_pb2 import ToolCall as WireToolCall
from turnwire.v1.tool_pb2 import ToolUse as WireToolUse
from turnwire_server.domain.errors import InvalidFieldError, UnknownBlockKindError, Violation
from turnwire_server.domain.ids import Mint
from turnwire_server.domain.tool import ToolCall, ToolUse
from turnwire_server.domain.turn import (
    ROLES,
    Block,
    BlockKind,
    BlockStatus,
    Image,
    LlmText,
    Other,
    Reasoning,
    System,
    Turn,
    TurnState,
    User,
)
from turnwire_server.wire import json_text, timestamp, tool
from turnwire_server.wire.arm import Arm

# The most bytes that the encoded form of one block may have (contract: turn.proto).
BLOCK_BYTES_MAX = 3 * 1024 * 1024


def image_to_proto(image: Image) -> pb.Image:
    """Return an Image."""
    message = pb.Image(media_type=image.media_type, detail=image.detail)
    if image.content:
        message.content = image.content
    elif image.file:
        message.file = image.file
    else:
        message.url = image.url
    return message


def image_from_proto(message: pb.Image) -> Image:
    """Return an image."""
    return Image(message.url, message.content, message.file, message.media_type, message.detail)


def _reasoning_to_proto(kind: Reasoning) -> pb.ReasoningBlock:
    return pb.ReasoningBlock(
        text=kind.text,
        summary=kind.summary,
        encrypted_content=kind.encrypted_content,
        signature=kind.signature,
        item=kind.item,
    )


def _reasoning_from_proto(message: pb.ReasoningBlock) -> Reasoning:
    return Reasoning(message.text, message.summary, message.encrypted_content, message.signature, message.item)


ARMS: tuple[Arm[Any, Any], ...] = (
    Arm(
        "user",
        User,
        pb.UserBlock,
        lambda k: pb.UserBlock(text=k.text, images=map(image_to_proto, k.images)),
        lambda m: User(m.text, tuple(map(image_from_proto, m.images))),
    ),
    Arm("system", System, pb.SystemBlock, lambda k: pb.SystemBlock(text=k.text), lambda m: System(m.text)),
    Arm("llm_text", LlmText, pb.LlmTextBlock, lambda k: pb.LlmTextBlock(text=k.text), lambda m: LlmText(m.text)),
    Arm("reasoning", Reasoning, pb.ReasoningBlock, _reasoning_to_proto, _reasoning_from_proto),
    Arm("tool_call", ToolCall, WireToolCall, tool.call_to_proto, tool.call_from_proto),
    Arm("tool_use", ToolUse, WireToolUse, tool.use_to_proto, tool.use_from_proto),
    Arm(
        "other",
        Other,
        pb.OtherBlock,
        lambda k: pb.OtherBlock(type=k.type, media_type=k.media_type, payload=k.payload),
        lambda m: Other(m.type, m.media_type, m.payload),
    ),
)

_BY_NOUN: Mapping[type[BlockKind], Arm[Any, Any]] = MappingProxyType({arm.noun: arm for arm in ARMS})
_BY_FIELD: Mapping[str, Arm[Any, Any]] = MappingProxyType({arm.field: arm for arm in ARMS})


def block_to_proto(block: Block) -> pb.Block:
    """Return a Block."""
    arm = _BY_NOUN[type(block.kind)]
    return pb.Block(
        id=block.id,
        role=block.role,
        status=pb.BlockStatus.ValueType(block.status),
        metadata=block.metadata,
        **{arm.field: arm.to_proto(block.kind)},
    )


def block_from_proto(message: pb.Block, position: int = 0) -> Block:
    """Return a block as it is; only a status that is not set becomes COMPLETE.

    Errors: UnknownBlockKindError, which names the position.
    """
    field = message.WhichOneof("kind")
    if field is None:
        raise UnknownBlockKindError(block=position)
    kind = _BY_FIELD[field].from_proto(getattr(message, field))
    status = BlockStatus(message.status) if message.status else BlockStatus.COMPLETE
    return Block(message.id, kind, message.role, status, dict(message.metadata))


def encode_block(block: Block) -> bytes:
    """Return the bytes of a block, the same for equal blocks."""
    return block_to_proto(block).SerializeToString(deterministic=True)


def decode_block(data: bytes) -> Block:
    """Return the block that `encode_block` made the bytes of."""
    return block_from_proto(pb.Block.FromString(data))


def input_from_proto(messages: Sequence[pb.Block], mint: Mint, path: str = "input") -> tuple[Block, ...]:
    """Return the blocks of a request, with an id and a role where the request has none.

    Errors: UnknownBlockKindError, InvalidFieldError for what the rules in the contract's options cannot say.
    """
    blocks = tuple(block_from_proto(message, position) for position, message in enumerate(messages))
    violations = [
        violation
        for position, (message, block) in enumerate(zip(messages, blocks, strict=True))
        for violation in _violations(f"{path}[{position}]", message, block)
    ]
    violations += _repeated_ids(path, blocks)
    if violations:
        raise InvalidFieldError(*violations)
    return tuple(
        Block(block.id or mint(), block.kind, block.role or ROLES[type(block.kind)], block.status, block.metadata)
        for block in blocks
    )


def _repeated_ids(path: str, blocks: Sequence[Block]) -> Iterator[Violation]:
    seen: set[str] = set()
    for position, block in enumerate(blocks):
        if block.id in seen:
            yield Violation(f"{path}[{position}].id", "must be unique within the request", "block_id_unique")
        if block.id:
            seen.add(block.id)


def _violations(path: str, message: pb.Block, block: Block) -> Iterator[Violation]:
    if message.ByteSize() > BLOCK_BYTES_MAX:
        yield Violation(path, f"must have at most {BLOCK_BYTES_MAX} bytes", "block_bytes_max")
    yield from json_text.map_violations(f"{path}.metadata", block.metadata)
    if block.status is BlockStatus.INCOMPLETE:
        return
    match block.kind:
        case ToolCall(args=args):
            yield from json_text.object_violations(f"{path}.tool_call.args", args)
        case ToolUse(outcome=str(result)):
            yield from json_text.value_violations(f"{path}.tool_use.result", result)
        case LlmText(text=""):
            yield Violation(f"{path}.llm_text.text", "must not be empty in a COMPLETE block", "llm_text.not_empty")
        case _:
            return


def to_proto(turn: Turn) -> pb.Turn:
    """Return a Turn with the blocks that it has."""
    return pb.Turn(
        session_id=turn.session_id,
        inference_id=turn.inference_id,
        index=turn.index,
        parent=turn.parent,
        id=turn.id,
        state=pb.TurnState.ValueType(turn.state),
        blocks=map(block_to_proto, turn.blocks),
        block_count=turn.block_count,
        metadata=turn.metadata,
        data=turn.data,
        create_time=timestamp.to_proto(turn.create_time),
        close_time=timestamp.optional_to_proto(turn.close_time),
        inherited_block_count=turn.inherited_block_count,
        given_block_count=turn.given_block_count,
    )


def from_proto(message: pb.Turn) -> Turn:
    """Return a turn with the blocks that it has."""
    return Turn(
        session_id=message.session_id,
        inference_id=message.inference_id,
        index=message.index,
        id=message.id,
        state=TurnState(message.state),
        create_time=timestamp.from_proto(message.create_time),
        parent=message.parent if message.HasField("parent") else None,
        blocks=tuple(block_from_proto(block, position) for position, block in enumerate(message.blocks)),
        block_count=message.block_count,
        metadata=dict(message.metadata),
        data=dict(message.data),
        close_time=timestamp.from_proto(message.close_time) if message.HasField("close_time") else None,
        inherited_block_count=message.inherited_block_count,
        given_block_count=message.given_block_count,
    )

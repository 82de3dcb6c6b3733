"""Turns and blocks: what one inference was given and produced."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum
from types import MappingProxyType

from turnwire_server.domain.tool import ToolCall, ToolUse

# Data keys that are meant for one turn only; a child turn does not inherit them (contract: Turn.data).
PER_TURN_DATA = frozenset(
    {
        "geppetto.inference_config@v1",
        "geppetto.structured_output_config@v1",
        "geppetto.tool_config@v1",
        "geppetto.tool_definitions@v1",
    }
)


class TurnState(IntEnum):
    """Whether a turn may still grow. Numbers are those of the contract."""

    OPEN = 1
    CLOSED = 2


class TurnView(IntEnum):
    """How much of a turn an answer contains. Numbers are those of the contract."""

    UNSPECIFIED = 0
    BASIC = 1
    DELTA = 2
    FULL = 3


class BlockStatus(IntEnum):
    """Whether a block is whole. Numbers are those of the contract."""

    COMPLETE = 1
    INCOMPLETE = 2


@dataclass(frozen=True, slots=True)
class Image:
    """One image. Exactly one of `url`, `content` and `file` is not empty."""

    url: str = ""
    content: bytes = b""
    file: str = ""
    media_type: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class User:
    """What the user said."""

    text: str = ""
    images: tuple[Image, ...] = ()


@dataclass(frozen=True, slots=True)
class System:
    """An instruction to the model."""

    text: str = ""


@dataclass(frozen=True, slots=True)
class LlmText:
    """Text that the model produced."""

    text: str = ""


@dataclass(frozen=True, slots=True)
class Reasoning:
    """Reasoning that the model produced, with what its provider needs to accept it again."""

    text: str = ""
    summary: str = ""
    encrypted_content: str = ""
    signature: str = ""
    item: str = ""


@dataclass(frozen=True, slots=True)
class Other:
    """A kind that the contract does not have, kept byte for byte."""

    type: str
    media_type: str = ""
    payload: bytes = b""


BlockKind = User | System | LlmText | Reasoning | ToolCall | ToolUse | Other

# The role that a block gets when a request names none.
ROLES: Mapping[type[BlockKind], str] = MappingProxyType(
    {
        User: "user",
        System: "system",
        LlmText: "assistant",
        Reasoning: "assistant",
        ToolCall: "assistant",
        ToolUse: "tool",
        Other: "",
    }
)


@dataclass(frozen=True, slots=True)
class Block:
    """One atomic piece of a turn; the values of `metadata` are JSON texts."""

    id: str
    kind: BlockKind
    role: str = ""
    status: BlockStatus = BlockStatus.COMPLETE
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn, with as many of its blocks as were asked for.

    `block_count` counts all of them, `inherited_block_count` the parent's, `given_block_count` those and the input.
    """

    session_id: str
    inference_id: str
    index: int
    id: str
    state: TurnState
    create_time: datetime
    parent: int | None = None
    blocks: tuple[Block, ...] = ()
    block_count: int = 0
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])
    data: Mapping[str, str] = field(default_factory=dict[str, str])
    close_time: datetime | None = None
    inherited_block_count: int = 0
    given_block_count: int = 0


class SnapshotPhase(IntEnum):
    """Where in the loop a snapshot was taken. Numbers are those of the contract."""

    PRE_INFERENCE = 1
    POST_INFERENCE = 2
    POST_TOOLS = 3
    FINAL = 4


@dataclass(frozen=True, slots=True)
class SnapshotMark:
    """That a turn had so many blocks, its parent's included, at some moment between the phases of its inference.

    A turn only grows, so this is all that there is to keep of a snapshot. `iteration` counts engine calls from 1.
    """

    phase: SnapshotPhase
    iteration: int
    block_count: int
    create_time: datetime


@dataclass(frozen=True, slots=True)
class TurnSnapshot:
    """A mark, and the turn with the blocks that it had then in the view DELTA, as far as they fit in a page."""

    mark: SnapshotMark
    turn: Turn


# What the metadata of a turn may have in bytes, and its data, keys included; likewise the metadata of a session. It
# keeps every response that shows them below 4 MiB.
MAP_BYTES_MAX = 256 * 1024


def map_bytes(texts: Mapping[str, str]) -> int:
    """Return how many bytes of UTF-8 the keys and values of a map have."""
    return sum(len(key.encode()) + len(text.encode()) for key, text in texts.items())


def inherit_data(parent: Mapping[str, str], own: Mapping[str, str]) -> dict[str, str]:
    """Return the data of a child turn: the parent's without what was meant for one turn only, then its own."""
    return {key: value for key, value in parent.items() if key not in PER_TURN_DATA} | dict(own)

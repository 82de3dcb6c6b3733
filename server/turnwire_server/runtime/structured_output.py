"""Structured output: the final text has to satisfy a JSON Schema; the model is told what is wrong when it does not."""

from collections.abc import Sequence

from turnwire_server.domain.errors import InvalidFieldError, Violation
from turnwire_server.domain.turn import Block, BlockStatus, LlmText, User
from turnwire_server.tools.schema import compile_schema

# What a repair tells the model of a violation, in characters.
VIOLATION_LENGTH_MAX = 2000

# Marks the block of a turn that sends invalid output back.
REPAIR_KEY = "turnwire.output_repair@v1"


def check_schema(text: str) -> None:
    """Refuse a schema that cannot be used. Errors: InvalidFieldError."""
    try:
        if text:
            compile_schema(text)
    except ValueError as error:
        raise InvalidFieldError(Violation("overrides.output_schema", str(error), "json_schema")) from None


def violation_of(schema: str, blocks: Sequence[Block]) -> str:
    """Return how the text among the blocks of one engine call breaks the schema; empty if it does not."""
    if not schema:
        return ""
    texts = [block.kind.text for block in blocks if isinstance(block.kind, LlmText) and _is_whole(block)]
    return compile_schema(schema).violation("".join(texts))[:VIOLATION_LENGTH_MAX]


def repair_block(violation: str) -> Block:
    """Return what the model is told about output that breaks the schema."""
    text = (
        f"Your last message does not satisfy the JSON Schema that was asked for: {violation}\n"
        "Answer again with nothing but JSON that satisfies it."
    )
    return Block("", User(text), "user", metadata={REPAIR_KEY: "true"})


def _is_whole(block: Block) -> bool:
    return block.status is BlockStatus.COMPLETE

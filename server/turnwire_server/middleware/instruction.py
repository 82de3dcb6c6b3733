"""Instructions that middleware shows to the engine, and nobody stores: system blocks without an id."""

from collections.abc import Sequence

from turnwire_server.domain.turn import Block, System


def put_first(blocks: Sequence[Block], text: str) -> tuple[Block, ...]:
    """Return the blocks with an instruction before them; behind those that middleware further outside has put there."""
    return _insert(blocks, text, [isinstance(block.kind, System) and not block.id for block in blocks])


def put_behind_system(blocks: Sequence[Block], text: str) -> tuple[Block, ...]:
    """Return the blocks with an instruction behind the system blocks that they begin with."""
    return _insert(blocks, text, [isinstance(block.kind, System) for block in blocks])


def _insert(blocks: Sequence[Block], text: str, are_ahead: Sequence[bool]) -> tuple[Block, ...]:
    at = [*are_ahead, False].index(False)
    return (*blocks[:at], Block("", System(text), "system"), *blocks[at:])

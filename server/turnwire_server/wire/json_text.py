"""JSON texts inside the contract's fields: they are checked, and kept as they came."""

import json
from collections.abc import Iterator, Mapping

from turnwire_server.domain.errors import Violation
from turnwire_server.domain.json_text import is_json, is_json_object
from turnwire_server.domain.turn import MAP_BYTES_MAX, map_bytes


def value_violations(path: str, text: str) -> Iterator[Violation]:
    """Yield a violation if `text` is not one JSON text (RFC 8259)."""
    if not is_json(text):
        yield Violation(path, "must be one JSON text", "json")


def object_violations(path: str, text: str) -> Iterator[Violation]:
    """Yield a violation if `text` is neither empty nor one JSON object."""
    if text and not is_json_object(text):
        yield Violation(path, "must be one JSON object", "json_object")


def schema_violations(path: str, text: str) -> Iterator[Violation]:
    """Yield a violation if `text` is neither empty nor a JSON object or boolean, which every JSON Schema is."""
    if text and not (text.strip(" \t\r\n") in ("true", "false") or is_json_object(text)):
        yield Violation(path, "must be one JSON Schema", "json_schema")


def map_violations(path: str, texts: Mapping[str, str]) -> Iterator[Violation]:
    """Yield a violation for every value of a map that is not one JSON text, and one if there are too many bytes."""
    for key, text in texts.items():
        yield from value_violations(f"{path}[{json.dumps(key, ensure_ascii=False)}]", text)
    if map_bytes(texts) > MAP_BYTES_MAX:
        yield Violation(path, f"must have at most {MAP_BYTES_MAX} bytes in all", "map_bytes_max")

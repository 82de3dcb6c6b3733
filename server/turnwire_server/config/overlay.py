"""How one map is laid over another. Pure."""

from collections.abc import Mapping
from typing import Any, cast


def overlay(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Lay one map over another: maps recursively, anything else replaces, and null takes away (RFC 7396)."""
    merged = dict(below)
    for key, value in above.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, dict):
            merged[key] = overlay(_map(merged.get(key)), _map(value))
        else:
            merged[key] = value
    return merged


def _map(value: Any) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}

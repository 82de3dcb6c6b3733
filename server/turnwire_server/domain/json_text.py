"""Whether a text is JSON (RFC 8259). What it means is not looked at, so that what is kept as text stays as it came."""

import json


def is_json(text: str) -> bool:
    """Whether `text` is one JSON text. Numbers may be longer than Python converts; NaN and Infinity are not JSON."""
    try:
        json.loads(text, parse_int=_skip, parse_float=_skip, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return False
    return True


def is_json_object(text: str) -> bool:
    """Whether `text` is one JSON object."""
    return text.lstrip(" \t\r\n").startswith("{") and is_json(text)


def _skip(_number: str) -> None:
    return None


def _refuse(constant: str) -> None:
    msg = f"{constant} is not JSON"
    raise ValueError(msg)

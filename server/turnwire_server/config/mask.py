"""What could be a secret is shown as `***`. In doubt it is masked: showing a secret is worse than hiding a word.

Masked are the values of `env` and `headers`; whatever stands under a name that smells of a secret, be it a key of a
map, a flag, or a word before `=` or `:` inside a text; and what a URL has before its host and after its path.
"""

import re

from pydantic import JsonValue

MASK = "***"

# Repetitions are bounded, so that the time for a text grows with its length and no faster.
_SMELL = r"(?:key|token|secret|pass|pwd|credential|auth|cookie|bearer|signature|private|jwt)"
_SMELLY = re.compile(_SMELL, re.IGNORECASE)
_VALUES = re.compile(r"(?:env|environ|environment|headers?)$", re.IGNORECASE)
# `api_key_env: OPENAI_API_KEY` says where a secret is, and not what it is.
_NAMES_A_VARIABLE = re.compile(r"\w[_-]env$", re.IGNORECASE)
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")
_FLAG = re.compile(rf"--?[\w-]{{0,64}}{_SMELL}[\w-]{{0,64}}", re.IGNORECASE)
_ASSIGNED = re.compile(
    rf"""{_SMELL}[\w.-]{{0,64}}["']?\s{{0,8}}[=:]|(?:^|\s)--?[\w-]{{0,64}}{_SMELL}[\w-]{{0,64}}(?=\s)""", re.IGNORECASE
)
_URL = re.compile(r"""\b([a-z][a-z0-9+.-]{0,31}://)([^\s"'<>]+)""", re.IGNORECASE)


def masked(value: JsonValue) -> JsonValue:
    """Return a value that nobody here knows the meaning of, with what could be a secret in it masked."""
    if isinstance(value, dict):
        return {key: _masked_under(key, each) for key, each in value.items()}
    if isinstance(value, list):
        before: list[JsonValue] = [None, *value]
        return [_mask(each) if _is_flag(flag) else masked(each) for flag, each in zip(before, value, strict=False)]
    return _masked_text(value) if isinstance(value, str) else value


def masked_urls(text: str) -> str:
    """Return a text with what its URLs have before their host and after their path masked."""
    return _URL.sub(lambda found: found[1] + _masked_address(found[2]), text)


def _masked_under(key: str, value: JsonValue) -> JsonValue:
    if _NAMES_A_VARIABLE.search(key) and isinstance(value, str) and _VARIABLE.fullmatch(value):
        return value
    return _mask(value) if _SMELLY.search(key) or _VALUES.search(key) else masked(value)


def _mask(value: JsonValue) -> JsonValue:
    """Return only the form of a value: the keys of maps, and how long lists are."""
    if isinstance(value, dict):
        return {key: _mask(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_mask(each) for each in value]
    return value if value is None or isinstance(value, bool) else MASK


def _is_flag(value: JsonValue) -> bool:
    return isinstance(value, str) and _FLAG.fullmatch(value) is not None


def _masked_text(text: str) -> str:
    text = masked_urls(text)
    assigned = _ASSIGNED.search(text)
    return text if assigned is None else text[: assigned.end()] + MASK


def _masked_address(address: str) -> str:
    before, at, rest = address.rpartition("@")
    end = re.search(r"[?#]", rest)
    shown = rest if end is None else rest[: end.end()] + MASK
    return f"{MASK}@{shown}" if at and before else shown

"""What could be a secret is shown as `***`. In doubt it is masked: showing a secret is worse than hiding a word.

Masked are the values of `env` and `headers`; whatever stands under a name that smells of a secret, be it a key of a
map, a flag, or a word before `=` or `:` inside a text; what a URL has before its host and after its path; and what has
the form of a key: long, with letters and digits, as some services put it into the paths of URLs.
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
_FLAG = re.compile(rf"-p|--?[\w-]{{0,64}}{_SMELL}[\w-]{{0,64}}", re.IGNORECASE)
_ASSIGNED = re.compile(
    rf"""{_SMELL}[\w.-]{{0,64}}["']?\s{{0,8}}[=:]|(?:^|\s)--?[\w-]{{0,64}}{_SMELL}[\w-]{{0,64}}(?=\s)|\b(?:bearer|basic)(?=\s)""",
    re.IGNORECASE,
)
_LONG = re.compile(r"[A-Za-z0-9_]{20,}|[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")
_KEY = re.compile(r"\b(?:sk|pk|rk|ghp|gho|ghs|ghu|github_pat|glpat|xox[a-z])[-_][A-Za-z0-9_-]{8,}")
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
    """Return a text with what could be a secret in its URLs masked."""
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
    text = _masked_keys(masked_urls(text))
    assigned = _ASSIGNED.search(text)
    return text if assigned is None else text[: assigned.end()] + MASK


def _masked_address(address: str) -> str:
    before, at, rest = address.rpartition("@")
    end = re.search(r"[?#]", rest)
    shown = _masked_keys(rest) if end is None else _masked_keys(rest[: end.end()]) + MASK
    return f"{MASK}@{shown}" if at and before else shown


def _masked_keys(text: str) -> str:
    return _LONG.sub(lambda found: MASK if _is_mixed(found[0]) else found[0], _KEY.sub(MASK, text))


def _is_mixed(word: str) -> bool:
    return any(map(str.isdigit, word)) and any(map(str.isalpha, word))

"""What is wrong with what an operator wrote."""

from collections.abc import Mapping
from types import MappingProxyType

from pydantic import ValidationError
from pydantic_core import ErrorDetails

# What to do about an error, where pydantic's own words only say that there is one.
_ADVICE: Mapping[str, str] = MappingProxyType(
    {
        "dict_type": "must be a map",
        "extra_forbidden": "there is no such field; correct its name, or remove it",
        "invalid-json-value": "must be what JSON has; put a date into quotes",
        "missing": "is missing; add it",
        "model_type": "must be a map of fields",
    }
)


class ConfigError(Exception):
    """A setting or a profile is wrong. The message says where, and what to do."""


def explain(what: str, error: ValidationError) -> ConfigError:
    """Return the error that names each wrong field of `what`, one per line."""
    lines = (
        f"  {'.'.join(map(str, each['loc'])) or 'as a whole'}: {_ADVICE.get(each['type']) or _message(each)}"
        for each in error.errors()
    )
    return ConfigError(f"{what} is not valid:\n" + "\n".join(lines))


def _message(error: ErrorDetails) -> str:
    return error["msg"].removeprefix("Value error, ")

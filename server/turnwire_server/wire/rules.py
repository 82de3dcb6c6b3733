"""The field rules of the contract, as protovalidate reads them from the options of its files."""

import json

import protovalidate
from google.protobuf.message import Message

from turnwire_server.domain.errors import InvalidFieldError, Violation

_validator = protovalidate.Validator()


# As many violations as the contract promises to tell, and the largest request in which all of them are looked for. In a
# larger one the first is enough: looking for all of them could take seconds.
VIOLATIONS_MAX = 8
EXHAUSTIVE_BYTES_MAX = 64 * 1024


def check_rules(request: Message) -> None:
    """Raise InvalidFieldError if a message breaks a rule of its fields."""
    if violations := rule_violations(request, exhaustive=request.ByteSize() <= EXHAUSTIVE_BYTES_MAX):
        raise InvalidFieldError(*violations)


def rule_violations(request: Message, *, exhaustive: bool = True) -> tuple[Violation, ...]:
    """Return violations of the rules, at most VIOLATIONS_MAX; only the first one unless `exhaustive`.

    A path looks like `input[2].tool_call.args` or `labels["a"]`; it is empty for a rule of the message as a whole.
    """
    found = _validator.collect_violations(request, fail_fast=not exhaustive)[:VIOLATIONS_MAX]
    return tuple(Violation(_path(each.proto.field), each.proto.message, each.proto.rule_id) for each in found)


def _path(field: protovalidate.FieldPathPb | None) -> str:
    parts: list[str] = []
    for element in field.elements if field else ():
        parts += ("." if parts else "", element.field_name)
        match element.subscript:
            case None:
                pass
            case subscript if subscript.field == "string_key":
                parts.append(f"[{json.dumps(subscript.value, ensure_ascii=False)}]")
            case subscript:
                parts.append(f"[{subscript.value}]")
    return "".join(parts)

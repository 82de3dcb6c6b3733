"""The field rules of the contract, as protovalidate reads them from the options of its files."""

import json

import protovalidate
from google.protobuf.message import Message

from turnwire_server.domain.errors import InvalidFieldError, Violation

_validator = protovalidate.Validator()


def check_rules(request: Message) -> None:
    """Raise InvalidFieldError, with every violation, if a message breaks a rule of its fields."""
    if violations := rule_violations(request):
        raise InvalidFieldError(*violations)


def rule_violations(request: Message) -> tuple[Violation, ...]:
    """Return every violation of a rule.

    A path looks like `input[2].tool_call.args` or `labels["a"]`; it is empty for a rule of the message as a whole.
    """
    found = (violation.proto for violation in _validator.collect_violations(request))
    return tuple(Violation(_path(each.field), each.message, each.rule_id) for each in found)


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

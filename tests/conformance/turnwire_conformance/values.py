"""The values of cases: how a request is written down. The head of conformance.proto says what is understood.

Whatever a case has wrong is a CaseError: the case is at fault then, not the server.
"""

import base64
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from google.protobuf import json_format
from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor
from google.protobuf.message import DecodeError, Message

Variables = Mapping[str, Any]
"""What cases have kept: texts, numbers, messages, and lists of them."""

_NAME = re.compile(r"\$([A-Za-z_][A-Za-z0-9_]*)")
_INSERT = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")

_WELL_KNOWN = "google.protobuf."


class CaseError(Exception):
    """A case that says something that has no meaning."""


@dataclass(frozen=True, slots=True)
class Written:
    """A variable as a row of the case says it: what is put into it is put in where it is used."""

    value: Any


def resolve(value: Any, variables: Variables) -> Any:
    """Return a value with its variables and its `$` forms put in, those of messages aside."""
    if isinstance(value, str):
        return _resolve_text(value, variables)
    if isinstance(value, list):
        return [resolve(each, variables) for each in cast("Any", value)]
    if not isinstance(value, Mapping):
        return _number(value)
    mapping = cast("Mapping[str, Any]", value)
    if "$list" in mapping:
        item, count = mapping["$list"]
        return [resolve(item, {**variables, "n": n}) for n in range(int(resolve(count, variables)))]
    if "$times" in mapping:
        text, count = resolve(mapping["$times"], variables)
        return cast("str", text) * int(count)
    if "$json_of" in mapping:
        return json.dumps(plain(resolve(mapping["$json_of"], variables)), ensure_ascii=False)
    if "$sum" in mapping:
        return sum(int(each) for each in resolve(mapping["$sum"], variables))
    return {_insert(key, variables): resolve(each, variables) for key, each in mapping.items()}


def _resolve_text(text: str, variables: Variables) -> Any:
    whole = _NAME.fullmatch(text)
    return _variable(whole[1], variables) if whole else _insert(text, variables)


def _insert(text: str, variables: Variables) -> str:
    return _INSERT.sub(lambda found: str(_variable(found[1], variables)), text)


def _variable(name: str, variables: Variables) -> Any:
    if name not in variables:
        msg = f"there is no variable ${name}; there are {', '.join(sorted(variables))}"
        raise CaseError(msg)
    found = variables[name]
    return resolve(found.value, variables) if isinstance(found, Written) else found


def _number(value: Any) -> Any:
    """Return what JSON says as a float as the integer that was meant."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def whole(value: Any) -> Any:
    """Return a value of JSON in which every number that is whole is an integer."""
    if isinstance(value, Mapping):
        return {key: whole(each) for key, each in cast("Mapping[str, Any]", value).items()}
    return [whole(each) for each in cast("Any", value)] if isinstance(value, list) else _number(value)


def build(message: Message, value: Any, variables: Variables) -> Message:
    """Fill a message with what a value says, and return it."""
    resolved: Any = resolve(value, variables) if value is not None else {}
    if isinstance(resolved, Message):
        message.CopyFrom(resolved)
        return message
    _fill(message, resolved)
    return message


def _fill(message: Message, value: Any) -> None:
    if not isinstance(value, Mapping):
        msg = f"{message.DESCRIPTOR.name} cannot be {value!r}"
        raise CaseError(msg)
    mapping = cast("Mapping[str, Any]", value)
    if "$bytes" in mapping or "$message" in mapping:
        _fill_raw(message, mapping)
        return
    for name, each in mapping.items():
        field: Any = message.DESCRIPTOR.fields_by_name.get(name)
        if field is None:
            msg = f"{message.DESCRIPTOR.full_name} has no field {name}"
            raise CaseError(msg)
        _set(message, field, each)


def _fill_raw(message: Message, mapping: Mapping[str, Any]) -> None:
    """A message as bytes: `$bytes`, or `$message` with `$append`. What nobody knows is kept when it is sent."""
    if "$message" in mapping:
        _fill(message, mapping["$message"])
    try:
        message.MergeFromString(bytes.fromhex(mapping.get("$bytes", "") + mapping.get("$append", "")))
    except (ValueError, DecodeError) as error:
        msg = f"{message.DESCRIPTOR.name} cannot be made of {mapping}: {error}"
        raise CaseError(msg) from None


def _set(message: Message, field: FieldDescriptor, value: Any) -> None:
    if is_map(field):
        _set_map(message, field, value)
    elif field.is_repeated:
        _set_list(message, field, value)
    elif field.message_type is not None and not field.message_type.full_name.startswith(_WELL_KNOWN):
        child = getattr(message, field.name)
        child.SetInParent()
        if isinstance(value, Message):
            child.CopyFrom(value)
        else:
            _fill(child, value)
    else:
        _parse(message, field, _scalar(field, value))


def _set_map(message: Message, field: FieldDescriptor, value: Any) -> None:
    entry: Any = cast("Any", field.message_type).fields_by_name["value"]
    _parse(message, field, {key: _scalar(entry, each) for key, each in cast("Mapping[str, Any]", value).items()})


def _set_list(message: Message, field: FieldDescriptor, value: Any) -> None:
    items = getattr(message, field.name)
    if not isinstance(value, Sequence) or isinstance(value, str):
        msg = f"{field.full_name} is a list, and cannot be {value!r}"
        raise CaseError(msg)
    for each in cast("Any", value):
        if field.message_type is None:
            _parse(message, field, [_scalar(field, each)])
        elif isinstance(each, Message):
            items.add().CopyFrom(each)
        else:
            _fill(items.add(), each)


def _parse(message: Message, field: FieldDescriptor, value: Any) -> None:
    """Set a field from ProtoJSON; a list is appended."""
    read = type(message)()
    try:
        json_format.ParseDict({field.name: value}, read)
    except json_format.ParseError as error:
        msg = f"{field.full_name} cannot be {value!r}: {error}"
        raise CaseError(msg) from None
    message.MergeFrom(read)


def _scalar(field: FieldDescriptor, value: Any) -> Any:
    """Return a value in ProtoJSON."""
    if field.message_type is not None:
        return json_format.MessageToDict(value) if isinstance(value, Message) else value
    if field.enum_type is not None:
        return enum_number(field.enum_type, value)
    if field.type == FieldDescriptor.TYPE_STRING and isinstance(value, Mapping | list | int | float):
        return json.dumps(plain(value), ensure_ascii=False)
    if field.type == FieldDescriptor.TYPE_BYTES and isinstance(value, Mapping):
        return base64.b64encode(bytes.fromhex(cast("Mapping[str, str]", value)["$bytes"])).decode()
    return value


def plain(value: Any) -> Any:
    """Return a value with its messages as ProtoJSON."""
    if isinstance(value, Message):
        return json_format.MessageToDict(value)
    if isinstance(value, Mapping):
        return {key: plain(each) for key, each in cast("Mapping[str, Any]", value).items()}
    return [plain(each) for each in cast("Any", value)] if isinstance(value, list) else value


def enum_number(kind: EnumDescriptor, value: Any) -> int:
    """Return the number of an enum's value, named with or without the enum's prefix. A number is itself."""
    if isinstance(value, int):
        return value
    for name, number in _enum_names(kind):
        if value == name:
            return number
    msg = f"{kind.full_name} has no {value}"
    raise CaseError(msg)


def _enum_names(kind: EnumDescriptor) -> Iterator[tuple[str, int]]:
    prefix = re.sub(r"(?<!^)(?=[A-Z])", "_", kind.name).upper() + "_"
    for each in kind.values:
        yield each.name, each.number
        yield each.name.removeprefix(prefix), each.number


def is_map(field: FieldDescriptor) -> bool:
    """Whether a field is a map."""
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def pick(root: Any, path: str) -> Any:
    """Return what a path leads to: fields, keys and indexes, joined by points. An empty path is the root."""
    found = root
    for name in path.split(".") if path else ():
        found = _step(found, name, path)
    return found


def _step(found: Any, name: str, path: str) -> Any:
    try:
        if isinstance(found, Message):
            return getattr(found, name)
        if isinstance(found, Mapping):
            mapping = cast("Mapping[str, Any]", found)
            return dict(mapping)[name]  # a map of protobuf itself has a default for every key
        return found[int(name)]
    except (AttributeError, KeyError, IndexError, ValueError, TypeError):
        msg = f"there is no {name} on the way of {path}"
        raise LookupError(msg) from None

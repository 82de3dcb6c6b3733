"""Patterns of cases against what a server answers. The head of conformance.proto says what is understood."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from itertools import pairwise
from types import MappingProxyType
from typing import Any, cast

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from turnwire_conformance.values import CaseError, Variables, enum_number, is_map, pick, resolve

SHOWN_MAX = 600
"""How much of a value a mismatch shows, in characters."""


class MismatchError(AssertionError):
    """A pattern does not hold. The text says where, what was due, and what was found."""


def check_pattern(found: Any, pattern: Any, variables: Variables, where: str = "") -> None:
    """Return if a pattern holds for a value. Errors: MismatchError; CaseError for what is no pattern."""
    _check(found, resolve(pattern, variables), where or "it", None)


def holds(found: Any, pattern: Any, variables: Variables) -> bool:
    """Whether a pattern holds for a value."""
    try:
        check_pattern(found, pattern, variables)
    except MismatchError:
        return False
    return True


def show(value: Any) -> str:
    """Return a value for people, cut where it is long."""
    text = " ".join(str(value).split())
    return text if len(text) <= SHOWN_MAX else f"{text[:SHOWN_MAX]}... ({len(text)} characters)"


def _fail(where: str, due: object, found: object) -> None:
    msg = f"{where} is {show(found) or 'empty'}, and should be {show(due)}"
    raise MismatchError(msg)


def _check(found: Any, pattern: Any, where: str, field: FieldDescriptor | None) -> None:
    if isinstance(pattern, Mapping):
        mapping = cast("Mapping[str, Any]", pattern)
        if names := [name for name in mapping if name.startswith("$")]:
            for name in names:
                _check_form(name, found, mapping[name], where, field)
        elif isinstance(found, Message):
            _check_message(found, mapping, where)
        elif isinstance(found, Mapping):
            _check_mapping(cast("Mapping[str, Any]", found), mapping, where)
        else:
            _fail(where, mapping, found)
    elif isinstance(pattern, list):
        _check_list(found, cast("Any", pattern), where, field)
    elif not _is_equal(found, pattern, field):
        _fail(where, pattern, _named(found, field))


def _check_message(found: Message, pattern: Mapping[str, Any], where: str) -> None:
    for name, due in pattern.items():
        field: Any = found.DESCRIPTOR.fields_by_name.get(name)
        if field is None:
            msg = f"{found.DESCRIPTOR.full_name} has no field {name}"
            raise CaseError(msg)
        _check_field(found, field, due, f"{where}.{name}" if where != "it" else name)


def _check_field(found: Message, field: FieldDescriptor, due: Any, where: str) -> None:
    value = getattr(found, field.name)
    is_there = found.HasField(field.name) if field.has_presence else bool(value)
    form = _form_of(due)
    if "$absent" in form:
        if is_there:
            _fail(where, "absent", value)
    elif "$present" in form:
        if not is_there:
            _fail(where, "present", "absent")
    elif field.has_presence and not is_there and "$not" not in form and "$any_of" not in form:
        _fail(where, due, f"absent, in {found}")
    else:
        _check(value, due, where, field)


def _form_of(due: Any) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", due) if isinstance(due, Mapping) else {}


def _check_mapping(found: Mapping[str, Any], pattern: Mapping[str, Any], where: str) -> None:
    for name, due in pattern.items():
        form = _form_of(due)
        if "$absent" in form:
            if name in found:
                _fail(f"{where}.{name}", "absent", found[name])
        elif name not in found:
            _fail(f"{where}.{name}", due, f"absent, among {sorted(found)}")
        else:
            _check(found[name], due, f"{where}.{name}", None)


def _check_list(found: Any, pattern: Sequence[Any], where: str, field: FieldDescriptor | None) -> None:
    elements = _elements(found, where)
    if len(elements) != len(pattern):
        _fail(where, f"{len(pattern)} elements: {pattern}", f"{len(elements)}: {list(elements)}")
    for number, (each, due) in enumerate(zip(elements, pattern, strict=True)):
        _check(each, due, f"{where}[{number}]", field)


def _elements(found: Any, where: str) -> Sequence[Any]:
    if isinstance(found, str | bytes | Message | Mapping) or not hasattr(found, "__len__"):
        _fail(where, "a list", cast("Any", found))
    return cast("Sequence[Any]", found)


def _is_equal(found: Any, due: Any, field: FieldDescriptor | None) -> bool:
    if isinstance(found, Message):
        return bool(_comparable(found) == _comparable(due))
    if field is not None and not is_map(field) and field.enum_type is not None:
        return bool(found == enum_number(field.enum_type, due))
    if isinstance(due, bool) or isinstance(found, bool):
        return found is due
    return bool(found == due) or (isinstance(due, int | float) and str(found) == str(due))


def _named(found: Any, field: FieldDescriptor | None) -> Any:
    """Return an enum's value by its name."""
    kind = field.enum_type if field is not None else None
    value = kind.values_by_number.get(found) if kind is not None and isinstance(found, int) else None
    return value.name if value is not None else found


def _comparable(value: Any) -> Any:
    """Return a value that can be compared: times and durations as such, numbers that came as texts as numbers."""
    if isinstance(value, Timestamp):
        return value.ToNanoseconds()
    if isinstance(value, Duration):
        return value.ToTimedelta()
    if isinstance(value, str):
        return _duration(value) or value
    return value


def _duration(text: str) -> timedelta | None:
    duration = Duration()
    try:
        duration.FromJsonString(text)
    except ValueError:
        return None
    return duration.ToTimedelta()


# --- forms: found, argument, where, field ------------------------------------------------------------

_Field = FieldDescriptor | None


def _check_form(name: str, found: Any, argument: Any, where: str, field: _Field) -> None:
    form = _FORMS.get(name)
    if form is None:
        msg = f"there is no pattern {name}; there are {', '.join(sorted(_FORMS))}"
        raise CaseError(msg)
    form(found, argument, where, field)


def _holds(found: Any, pattern: Any, field: _Field) -> bool:
    try:
        _check(found, pattern, "it", field)
    except MismatchError:
        return False
    return True


def _absent(found: Any, _: Any, where: str, __: _Field) -> None:
    if found:
        _fail(where, "absent", found)


def _present(found: Any, _: Any, where: str, __: _Field) -> None:
    if not found:
        _fail(where, "present", found)


def _not(found: Any, pattern: Any, where: str, field: _Field) -> None:
    if _holds(found, pattern, field):
        _fail(where, f"not {pattern}", _named(found, field))


def _any_of(found: Any, patterns: Any, where: str, field: _Field) -> None:
    if not any(_holds(found, each, field) for each in patterns):
        _fail(where, f"one of {patterns}", _named(found, field))


def _all_of(found: Any, patterns: Any, where: str, field: _Field) -> None:
    for each in patterns:
        _check(found, each, where, field)


def _equals(found: Any, due: Any, where: str, _: _Field) -> None:
    if _whole(found) != _whole(due):
        _fail(where, due, found)


def _whole(value: Any) -> Any:
    """Return a value that is equal to its like: the lists of protobuf and those of Python are not."""
    if isinstance(value, str | bytes | Message | Mapping) or not hasattr(value, "__len__"):
        return cast("Any", value)
    return list(value)


def _compared(compare: Callable[[Any, Any], bool], word: str) -> "_Form":
    def form(found: Any, due: Any, where: str, _: _Field) -> None:
        left, right = _comparable(found), _comparable(due)
        if isinstance(left, int) and isinstance(right, str) and right.removeprefix("-").isdecimal():
            right = int(right)
        try:
            is_held = compare(left, right)
        except TypeError:
            is_held = False
        if not is_held:
            _fail(where, f"{word} {due}", found)

    return form


def _size(found: Any, pattern: Any, where: str, _: _Field) -> None:
    if not hasattr(found, "__len__"):
        _fail(where, "a list, a text or bytes", found)
    _check(len(found.encode() if isinstance(found, str) else found), pattern, f"the size of {where}", None)


def _each(found: Any, pattern: Any, where: str, field: _Field) -> None:
    for number, each in enumerate(_elements(found, where)):
        _check(each, pattern, f"{where}[{number}]", field)


def _has(found: Any, patterns: Any, where: str, field: _Field) -> None:
    rest = iter(_elements(found, where))
    for due in patterns:
        if not any(_holds(each, due, field) for each in rest):
            _fail(where, f"with {due} (in the order {patterns})", list(found))


def _has_any_order(found: Any, patterns: Any, where: str, field: _Field) -> None:
    rest = list(_elements(found, where))
    for due in patterns:
        place = next((number for number, each in enumerate(rest) if _holds(each, due, field)), None)
        if place is None:
            _fail(where, f"with {due}", rest)
        else:
            del rest[place]


def _lacks(found: Any, pattern: Any, where: str, field: _Field) -> None:
    if surplus := [each for each in _elements(found, where) if _holds(each, pattern, field)]:
        _fail(where, f"without {pattern}", surplus)


def _rising(found: Any, path: Any, where: str, _: _Field) -> None:
    try:
        values = [_comparable(pick(each, path)) for each in _elements(found, where)]
    except LookupError as error:
        _fail(where, f"in rising order: {error}", found)
        return
    for before, after in pairwise(values):
        if type(before) is not type(after) or before > after:
            _fail(where, f"in rising order of {path or 'itself'}", values)


def _matches(found: Any, pattern: Any, where: str, _: _Field) -> None:
    if not isinstance(found, str) or not re.search(pattern, found):
        _fail(where, f"like {pattern}", found)


def _contains(found: Any, text: Any, where: str, _: _Field) -> None:
    if not isinstance(found, str) or text not in found:
        _fail(where, f"with {text}", found)


def _bytes(found: Any, digits: Any, where: str, _: _Field) -> None:
    if found != bytes.fromhex(digits):
        _fail(where, digits, found.hex() if isinstance(found, bytes) else found)


def _json(found: Any, pattern: Any, where: str, _: _Field) -> None:
    try:
        value = json.loads(found)
    except (TypeError, ValueError):
        _fail(where, "JSON", found)
    else:
        _check(value, pattern, where, None)


_Form = Callable[[Any, Any, str, _Field], None]
_FORMS: Mapping[str, _Form] = MappingProxyType(
    {
        "$absent": _absent,
        "$present": _present,
        "$not": _not,
        "$any_of": _any_of,
        "$all_of": _all_of,
        "$equals": _equals,
        "$gt": _compared(lambda a, b: a > b, "above"),
        "$ge": _compared(lambda a, b: a >= b, "at least"),
        "$lt": _compared(lambda a, b: a < b, "below"),
        "$le": _compared(lambda a, b: a <= b, "at most"),
        "$size": _size,
        "$each": _each,
        "$has": _has,
        "$has_any_order": _has_any_order,
        "$lacks": _lacks,
        "$rising": _rising,
        "$matches": _matches,
        "$contains": _contains,
        "$bytes": _bytes,
        "$json": _json,
    }
)

"""Messages with every field set, made from their descriptors: the same ones every time.

A field that is added to the contract is in them by itself, so what forgets to translate it is found.
"""

from collections.abc import Iterator
from typing import Any, TypeVar

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

M = TypeVar("M", bound=Message)

_DEPTH_MAX = 8
_INTEGERS = {
    FieldDescriptor.CPPTYPE_INT32,
    FieldDescriptor.CPPTYPE_INT64,
    FieldDescriptor.CPPTYPE_UINT32,
    FieldDescriptor.CPPTYPE_UINT64,
}


def samples(message_type: type[M]) -> Iterator[M]:
    """Yield the empty message, then messages with every field set: one for each arm of the oneof with the most arms."""
    yield message_type()
    arms = max((len(oneof.fields) for oneof in _oneofs(message_type.DESCRIPTOR)), default=1)
    for arm in range(arms):
        yield sample(message_type, arm)


def sample(message_type: type[M], arm: int = 0) -> M:
    """Return a message with every field set; of each oneof, the arm of that number, counted round."""
    message = message_type()
    _fill(message, arm, 0)
    return message


def with_arm(message_type: type[M], field: str) -> M:
    """Return a message with every field set; of the oneof that `field` is an arm of, that one."""
    oneof = message_type.DESCRIPTOR.fields_by_name[field].containing_oneof
    assert oneof is not None, f"{field} is no arm of a oneof"
    return sample(message_type, [each.name for each in oneof.fields].index(field))


def _oneofs(descriptor: Any) -> list[Any]:
    return [oneof for oneof in descriptor.oneofs if not is_synthetic(oneof)]


def is_synthetic(oneof: Any) -> bool:
    """Whether a oneof is only how `optional` is encoded."""
    return bool(oneof.name == f"_{oneof.fields[0].name}")


def _fill(message: Message, arm: int, depth: int) -> None:
    descriptor: Any = message.DESCRIPTOR
    chosen = {oneof.fields[arm % len(oneof.fields)].name for oneof in _oneofs(descriptor)}
    for field in descriptor.fields:
        oneof = field.containing_oneof
        if oneof is not None and not is_synthetic(oneof) and field.name not in chosen:
            continue
        _set(message, field, arm, depth)
    if chosen and depth < _DEPTH_MAX:
        for name in chosen:
            field = descriptor.fields_by_name[name]
            if field.message_type is not None:
                getattr(message, name).SetInParent()


def _set(message: Message, field: Any, arm: int, depth: int) -> None:
    target: Any = getattr(message, field.name)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        for count in (1, 2):
            target[f"turnwire.key{count}@v1"] = f'{{"value": {count}}}'
    elif field.is_repeated:
        for count in (0, 1):
            if field.message_type is not None:
                _fill(target.add(), arm + count, depth + 1)
            else:
                target.append(_scalar(field, count))
    elif field.message_type is not None:
        if depth < _DEPTH_MAX:
            _fill(target, arm, depth + 1)
            target.SetInParent()
    else:
        setattr(message, field.name, _scalar(field, 0))


def _scalar(field: Any, count: int) -> Any:
    kind = field.cpp_type
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return True
    if kind == FieldDescriptor.CPPTYPE_ENUM:
        return _enum_value(field.enum_type, count)
    if kind in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT):
        return 0.25 + count
    if kind in _INTEGERS:
        # Timestamp.nanos and Duration.nanos become microseconds on our side.
        return 123_000 if field.name == "nanos" else field.number + count
    if field.type == FieldDescriptor.TYPE_BYTES:
        return f"{field.name} \x00\xff {count}".encode("latin-1")
    return f"snake_{field.name}" if field.full_name.endswith("FieldMask.paths") else f"{field.name} ü {count}"


def _enum_value(enum: Any, count: int) -> int:
    numbers: list[int] = [value.number for value in enum.values if value.number]
    return numbers[count % len(numbers)]

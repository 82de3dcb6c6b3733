"""The contract as its files say it: descriptors with their comments and field rules, as buf reads them.

`load_contract` is our contract; `load_folder` reads any folder of .proto files, such as the seeded failures of the
gates in tests/fixtures/contract.
"""

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
)

from turnwire.v1 import event_pb2

ROOT = Path(__file__).resolve().parents[2]

# The numbers of descriptor.proto that a SourceCodeInfo path is made of.
_FILE_MESSAGES, _FILE_ENUMS, _FILE_SERVICES, _FILE_EXTENSIONS = 4, 5, 6, 7
_MESSAGE_FIELDS, _MESSAGE_NESTED, _MESSAGE_ENUMS, _MESSAGE_ONEOFS = 2, 3, 4, 8
_ENUM_VALUES = _SERVICE_METHODS = 2


@dataclass(frozen=True, slots=True)
class Element:
    """One thing that is defined in a file: its kind, its full name, its comment, and its descriptor."""

    kind: str
    name: str
    comment: str
    descriptor: Any


@dataclass(frozen=True, slots=True)
class Contract:
    """The files of one build, in the order of their imports, without those of others."""

    files: tuple[FileDescriptorProto, ...]
    rules: Mapping[str, Mapping[str, Any]]
    """The buf.validate.field options of each field, in ProtoJSON, by the field's full name."""

    def elements(self) -> Iterator[Element]:
        """Yield everything that is defined, in the order of the files."""
        for file in self.files:
            yield from _file_elements(file)

    def of_kind(self, *kinds: str) -> list[Element]:
        """Return what is a `message`, `field`, `oneof`, `enum`, `value`, `service`, `rpc` or `extension`."""
        return [element for element in self.elements() if element.kind in kinds]

    def element(self, name: str) -> Element:
        """Return the element of that full name."""
        return next(element for element in self.elements() if element.name == name)


@cache
def load_contract() -> Contract:
    """Return our contract, the testing package included."""
    return _load(ROOT)


@cache
def load_folder(folder: Path) -> Contract:
    """Return the contract that a folder of .proto files makes."""
    return _load(folder)


def _load(folder: Path) -> Contract:
    buf = Path(sys.executable).with_name("buf")
    with tempfile.TemporaryDirectory() as scratch:
        binary, text = Path(scratch, "image.binpb"), Path(scratch, "image.json")
        for output in (binary, text):
            subprocess.run([buf, "build", folder, "--output", output], check=True)
        files = FileDescriptorSet.FromString(binary.read_bytes()).file
        image = json.loads(text.read_bytes())
    own = tuple(file for file in files if not file.name.startswith(("google/", "buf/")))
    return Contract(own, dict(_rules(image)))


def _rules(image: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for file in image["file"]:
        for message in file.get("messageType", ()):
            yield from _message_rules(file.get("package", ""), message)


def _message_rules(scope: str, message: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    name = f"{scope}.{message['name']}"
    for field in message.get("field", ()):
        yield f"{name}.{field['name']}", field.get("options", {}).get("[buf.validate.field]", {})
    for nested in message.get("nestedType", ()):
        yield from _message_rules(name, nested)


def _file_elements(file: FileDescriptorProto) -> Iterator[Element]:
    comments = {tuple(each.path): each.leading_comments for each in file.source_code_info.location}
    for index, message in enumerate(file.message_type):
        yield from _message_elements(file.package, message, (_FILE_MESSAGES, index), comments)
    for index, enum in enumerate(file.enum_type):
        yield from _enum_elements(file.package, enum, (_FILE_ENUMS, index), comments)
    for index, extension in enumerate(file.extension):
        path = (_FILE_EXTENSIONS, index)
        yield Element("extension", f"{file.package}.{extension.name}", comments.get(path, ""), extension)
    for index, service in enumerate(file.service):
        path = (_FILE_SERVICES, index)
        name = f"{file.package}.{service.name}"
        yield Element("service", name, comments.get(path, ""), service)
        for position, method in enumerate(service.method):
            comment = comments.get((*path, _SERVICE_METHODS, position), "")
            yield Element("rpc", f"{name}.{method.name}", comment, method)


def _message_elements(
    scope: str, message: DescriptorProto, path: tuple[int, ...], comments: Mapping[tuple[int, ...], str]
) -> Iterator[Element]:
    if message.options.map_entry:
        return
    name = f"{scope}.{message.name}"
    yield Element("message", name, comments.get(path, ""), message)
    for index, field in enumerate(message.field):
        yield Element("field", f"{name}.{field.name}", comments.get((*path, _MESSAGE_FIELDS, index), ""), field)
    for index, oneof in enumerate(message.oneof_decl):
        if not _is_synthetic(message, index):
            yield Element("oneof", f"{name}.{oneof.name}", comments.get((*path, _MESSAGE_ONEOFS, index), ""), oneof)
    for index, nested in enumerate(message.nested_type):
        yield from _message_elements(name, nested, (*path, _MESSAGE_NESTED, index), comments)
    for index, enum in enumerate(message.enum_type):
        yield from _enum_elements(name, enum, (*path, _MESSAGE_ENUMS, index), comments)


def _enum_elements(
    scope: str, enum: EnumDescriptorProto, path: tuple[int, ...], comments: Mapping[tuple[int, ...], str]
) -> Iterator[Element]:
    yield Element("enum", f"{scope}.{enum.name}", comments.get(path, ""), enum)
    for index, value in enumerate(enum.value):
        comment = comments.get((*path, _ENUM_VALUES, index), "")
        yield Element("value", f"{scope}.{enum.name}.{value.name}", comment, value)


def _is_synthetic(message: DescriptorProto, oneof: int) -> bool:
    """Whether a oneof is only how `optional` is encoded."""
    return any(field.proto3_optional and field.oneof_index == oneof for field in message.field)


def is_bounded_kind(field: FieldDescriptorProto) -> bool:
    """Whether a field can have any size: a string, bytes, or anything repeated."""
    variable = (FieldDescriptorProto.TYPE_STRING, FieldDescriptorProto.TYPE_BYTES)
    return field.label == FieldDescriptorProto.LABEL_REPEATED or field.type in variable


def sem_name(field: FieldDescriptorProto) -> str:
    """Return the option (turnwire.v1.sem) of a field, empty when it has none."""
    return field.options.Extensions[event_pb2.sem]


@dataclass(frozen=True, slots=True)
class Reason:
    """One line of the error catalogue."""

    name: str
    number: int
    code: str
    definite: str
    retry: str
    metadata: tuple[str, ...]


_REASON = re.compile(
    r"^ Code: (?P<code>[A-Z_]+)\.  Definite: (?P<definite>yes|no)\."
    r"  Retry: (?P<retry>no|now|later|after RetryInfo|new inference)\.\n"
    r" Metadata: (?P<metadata>none|[a-z_]+(?:, [a-z_]+)*)\.\n\Z",
    re.MULTILINE,
)


def parse_reason(element: Element) -> Reason | None:
    """Return what the comment of a value of ErrorReason says, None when it does not say it in the agreed form."""
    found = _REASON.search(element.comment)
    if found is None:
        return None
    keys = () if found["metadata"] == "none" else tuple(found["metadata"].split(", "))
    name = element.descriptor.name.removeprefix("ERROR_REASON_")
    return Reason(name, element.descriptor.number, found["code"], found["definite"], found["retry"], keys)


def catalogue(contract: Contract) -> dict[str, Reason]:
    """Return the error catalogue by name, without what does not say it in the agreed form."""
    values = (each for each in contract.of_kind("value") if "ErrorReason.ERROR_REASON_" in each.name)
    reasons = (parse_reason(value) for value in values if value.descriptor.number)
    return {reason.name: reason for reason in reasons if reason is not None}


_ERRORS_ITEM = re.compile(r"^   - (?P<reason>[A-Z_]+) +(?P<when>\S.*)$", re.MULTILINE)


def rpc_errors(comment: str) -> list[str]:
    """Return the reasons of the "Errors:" list of an rpc, in its order; none when there is no such list."""
    _, found, after = comment.partition("\n Errors:\n")
    return [item["reason"] for item in _ERRORS_ITEM.finditer(after)] if found else []


def service_errors(comment: str) -> list[str]:
    """Return the reasons that a service says every rpc of it may fail with."""
    found = re.search(r"Every rpc of this service MAY also fail with ([A-Z_,\sand]+);", comment)
    return re.findall(r"[A-Z_]{2,}", found[1]) if found else []

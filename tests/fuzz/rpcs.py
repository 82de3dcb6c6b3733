"""Every rpc of the contract, found through its descriptors: a new one is fuzzed without being named."""

import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache

from google.protobuf.descriptor import Descriptor, FileDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

import turnwire.v1
from support.proto_docs import Reason, catalogue, load_contract, rpc_errors, service_errors

# Reasons from this number on end accepted inferences, and are never those of a status.
_FIRST_TERMINAL_REASON = 100

# What no server says that is well, has its store, and is not asked to stop.
_NEVER = frozenset({"INTERNAL", "STORE_UNAVAILABLE", "DRAINING"})


@dataclass(frozen=True, slots=True)
class Rpc:
    """One rpc. `reasons` are those that it may fail with here, `comments` what the contract says of its fields."""

    method: MethodDescriptor
    reasons: frozenset[str]

    @property
    def name(self) -> str:
        """Its name, such as `Wait`. No two services have the same."""
        return self.method.name

    @property
    def path(self) -> str:
        """Its path in a request of HTTP/2."""
        return f"/{self.method.containing_service.full_name}/{self.method.name}"

    @property
    def request_type(self) -> type[Message]:
        """The class of its requests."""
        return GetMessageClass(self.method.input_type)

    @property
    def response_type(self) -> type[Message]:
        """The class of its responses."""
        return GetMessageClass(self.method.output_type)


def _files() -> Iterator[FileDescriptor]:
    for module in pkgutil.iter_modules(turnwire.v1.__path__):
        if module.name.endswith("_pb2"):
            yield importlib.import_module(f"turnwire.v1.{module.name}").DESCRIPTOR


@cache
def rpcs() -> Mapping[str, Rpc]:
    """Return every rpc by its name."""
    comments = {each.name: each.comment for each in load_contract().of_kind("service", "rpc")}
    found: dict[str, Rpc] = {}
    for file in _files():
        for service in file.services_by_name.values():
            shared = service_errors(comments[service.full_name])
            for method in service.methods:
                own = rpc_errors(comments[f"{service.full_name}.{method.name}"])
                if method.client_streaming or method.name in found:
                    msg = f"{method.full_name} streams requests, or has the name of another rpc: nobody fuzzes it"
                    raise NotImplementedError(msg)
                found[method.name] = Rpc(method, frozenset({*shared, *own}) - _NEVER)
    return found


@cache
def reasons() -> Mapping[str, Reason]:
    """Return the part of the error catalogue that refuses requests, by name."""
    return {name: each for name, each in catalogue(load_contract()).items() if each.number < _FIRST_TERMINAL_REASON}


@cache
def field_comments() -> Mapping[str, str]:
    """Return what the contract says of each field, by its full name."""
    return {each.name: each.comment for each in load_contract().of_kind("field")}


def is_path_of(descriptor: Descriptor, path: str) -> bool:
    """Whether a path, such as `input[2].user` or `labels["a"]`, leads to a field or a oneof of a message.

    The path of the whole message is empty. What stands in brackets is not looked at.
    """
    if not path:
        return True
    name, _, rest = _without_brackets(path).partition(".")
    field = descriptor.fields_by_name.get(name)
    if field is None:
        return name in descriptor.oneofs_by_name and not rest
    if not rest:
        return True
    inner = field.message_type
    return inner is not None and is_path_of(inner, rest)


def _without_brackets(path: str) -> str:
    """Return a path without its subscripts; a key of a map stands in quotes, and may have anything in it."""
    kept: list[str] = []
    is_quoted = is_inside = is_escaped = False
    for character in path:
        if is_escaped:
            is_escaped = False
        elif is_quoted and character == "\\":
            is_escaped = True
        elif character == '"' and is_inside:
            is_quoted = not is_quoted
        elif character == "[" and not is_quoted:
            is_inside = True
        elif character == "]" and not is_quoted:
            is_inside = False
        elif not is_inside:
            kept.append(character)
    return "".join(kept)

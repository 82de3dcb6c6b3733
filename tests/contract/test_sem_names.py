"""SEM names: each variant of Event.payload has one, like its field's name but dotted; the hot ones have short tags."""

import re
from collections import Counter

from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto

from support.proto_docs import load_contract, sem_name
from support.seeded import seeded_contract

# Tags up to this one take one byte.
SHORT_NUMBER_MAX = 15

_NAME = re.compile(r"^[a-z]+(\.[a-z_]+)*$")


def variants(event: DescriptorProto) -> list[FieldDescriptorProto]:
    payload = [oneof.name for oneof in event.oneof_decl].index("payload")
    return [field for field in event.field if field.HasField("oneof_index") and field.oneof_index == payload]


def problems(event: DescriptorProto) -> list[str]:
    fields = variants(event)
    uses = Counter(map(sem_name, fields))
    found: list[str] = []
    for field in fields:
        name = sem_name(field)
        if not name:
            found.append(f"{field.name} has no name")
            continue
        if not _NAME.match(name):
            found.append(f"{name} is not made of words")
        if name.replace(".", "_") != field.name:
            found.append(f"{name} is not {field.name}")
        if uses[name] > 1:
            found.append(f"{name} is used twice")
        if name.endswith(".delta") is not (field.number <= SHORT_NUMBER_MAX):
            found.append(f"{name} has the number {field.number}")
    return found


def test_sem_names() -> None:
    assert problems(load_contract().element("turnwire.v1.Event").descriptor) == []


def test_the_vocabulary_is_kept() -> None:
    names = {sem_name(field) for field in variants(load_contract().element("turnwire.v1.Event").descriptor)}
    assert names == {
        *("inference.queued", "inference.started", "inference.attempt_lost", "inference.finished"),
        *("turn.opened", "turn.closed"),
        *("llm.start", "llm.delta", "llm.final"),
        *("llm.thinking.start", "llm.thinking.delta", "llm.thinking.final"),
        *("tool.start", "tool.delta", "tool.call", "tool.result", "tool.done", "tools.required"),
        *("engine.call.started", "engine.call.finished", "log", "agent.mode", "error", "custom"),
        *("thinking.mode.started", "thinking.mode.update", "thinking.mode.completed"),
        *("debugger.pause", "debugger.resumed"),
    }


def test_the_sequence_can_be_stamped() -> None:
    sequence = load_contract().element("turnwire.v1.Event").descriptor.field[0]
    assert (sequence.name, sequence.number, sequence.type) == ("sequence", 1, FieldDescriptorProto.TYPE_FIXED64)


def test_gate_fails() -> None:
    event = next(each for each in seeded_contract("sem").of_kind("message") if each.name == "seeded.sem.Event")
    assert problems(event.descriptor) == [
        "nameless has no name",
        "llm.final is not llm_delta",
        "llm.final is used twice",
        "llm.final has the number 1",
        "llm.final is used twice",
        "LLM.Start is not made of words",
        "log has the number 2",
        "tool.delta has the number 19",
    ]

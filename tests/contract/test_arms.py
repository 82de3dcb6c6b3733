"""Every arm of every oneof that has a noun round-trips between domain and wire, and none is left out.

The cases come from the descriptors: a new arm in the contract fails here until it is mapped.
"""

from collections.abc import Callable, Iterable
from typing import Any

import pytest
from google.protobuf.message import Message

from support.samples import with_arm
from turnwire.v1 import event_pb2, tool_pb2, turn_pb2
from turnwire_server.domain.event import IGNORABLE, Payload
from turnwire_server.domain.turn import ROLES, BlockKind
from turnwire_server.wire import event, payload, tool, turn

ONEOFS: list[tuple[type[Message], str, Callable[[Any], Any], Callable[[Any], Message]]] = [
    (event_pb2.Event, "payload", event.event_from_proto, event.event_to_proto),
    (
        event_pb2.InferenceFinished,
        "outcome",
        payload.BY_FIELD["inference_finished"].from_proto,
        payload.BY_FIELD["inference_finished"].to_proto,
    ),
    (turn_pb2.Block, "kind", turn.block_from_proto, turn.block_to_proto),
    (turn_pb2.Image, "source", turn.image_from_proto, turn.image_to_proto),
    (tool_pb2.ToolUse, "outcome", tool.use_from_proto, tool.use_to_proto),
    (tool_pb2.ToolOutcome, "outcome", tool.outcome_from_proto, tool.outcome_to_proto),
]


def arms(message_type: type[Message], oneof: str) -> list[str]:
    return [field.name for field in message_type.DESCRIPTOR.oneofs_by_name[oneof].fields]


CASES = [
    pytest.param(message_type, arm, from_proto, to_proto, id=f"{message_type.DESCRIPTOR.name}.{arm}")
    for message_type, oneof, from_proto, to_proto in ONEOFS
    for arm in arms(message_type, oneof)
]


def expected(message_type: type[Message], arm: str) -> Message:
    """A message with every field set, as a server makes it: nothing is omitted, and `ignorable` follows the variant."""
    message = with_arm(message_type, arm)
    if isinstance(message, event_pb2.Event):
        message.ignorable = payload.BY_FIELD[arm].noun in IGNORABLE
        for flag in ("text_omitted", "args_omitted", "result_omitted"):
            variant = getattr(message, arm)
            if flag in variant.DESCRIPTOR.fields_by_name:
                variant.ClearField(flag)
    return message


def unmapped(message_type: type[Message], oneof: str, mapped: Iterable[payload.Arm[Any, Any]]) -> list[str]:
    """The arms of a oneof that a table of arms does not have, has with another message, or has without need."""
    descriptor = message_type.DESCRIPTOR.oneofs_by_name[oneof]
    wanted = {field.name: field.message_type.full_name for field in descriptor.fields}
    found = {arm.field: arm.wire.DESCRIPTOR.full_name for arm in mapped}
    return sorted({name for name, _ in wanted.items() ^ found.items()})


@pytest.mark.parametrize(("message_type", "arm", "from_proto", "to_proto"), CASES)
def test_arm_round_trips(
    message_type: type[Message], arm: str, from_proto: Callable[[Any], Any], to_proto: Callable[[Any], Message]
) -> None:
    message = expected(message_type, arm)
    noun = from_proto(message)
    again = to_proto(noun)
    assert again == message
    assert from_proto(again) == noun


def test_tables_of_arms_are_complete() -> None:
    assert unmapped(event_pb2.Event, "payload", payload.ARMS) == []
    assert unmapped(turn_pb2.Block, "kind", turn.ARMS) == []


def test_every_noun_has_an_arm() -> None:
    assert set(Payload.__args__) == set(payload.BY_NOUN)
    assert set(BlockKind.__args__) == {arm.noun for arm in turn.ARMS} == set(ROLES)


def test_every_oneof_with_a_noun_is_a_case() -> None:
    """Targets and starts of requests are read where the request is; all others are nouns and have to be in ONEOFS."""
    files = (event_pb2, tool_pb2, turn_pb2)
    found = {
        (message.full_name, oneof.name)
        for file in files
        for message in file.DESCRIPTOR.message_types_by_name.values()
        for oneof in message.oneofs
        if not oneof.name.startswith("_")
    }
    assert found == {(message_type.DESCRIPTOR.full_name, oneof) for message_type, oneof, _, _ in ONEOFS}


def test_gate_for_tables_fails() -> None:
    without_log = [arm for arm in payload.ARMS if arm.field != "log"]
    assert unmapped(event_pb2.Event, "payload", without_log) == ["log"]
    assert unmapped(turn_pb2.Block, "kind", [*turn.ARMS, payload.BY_FIELD["custom"]]) == ["custom"]


def test_gate_for_round_trips_fails() -> None:
    """A translator that forgets a field is found, since the sample has every field set."""

    def forgetful(message: event_pb2.Event) -> Any:
        copy = event_pb2.Event.FromString(message.SerializeToString())
        copy.llm_thinking_final.ClearField("signature")
        return event.event_from_proto(copy)

    with pytest.raises(AssertionError):
        test_arm_round_trips(event_pb2.Event, "llm_thinking_final", forgetful, event.event_to_proto)

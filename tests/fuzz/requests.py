"""Requests, made from the descriptors of the contract and from its rules: valid ones, and ones with a few flaws.

A request is made as bytes, so that it can be what no generated class would write. In place of what a server mints it
has stand-ins; see world.World.real.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from fuzz import texts, values, wire
from fuzz.draws import Draws
from fuzz.rpcs import Rpc, field_comments
from fuzz.world import LISTINGS, inference_stand_in, listings, page_stand_in
from support.proto_docs import load_contract
from turnwire.v1 import inference_service_pb2, tool_pb2, turn_pb2

Rules = Mapping[str, Any]

# How often a request has no flaw, a few, or is bytes that only begin as one does.
_KINDS = ("valid",) * 5 + ("flawed",) * 9 + ("cut", "noise")
_FLAWS_MAX = 3

# Unknown fields are skipped by a parser, or recursed into: it goes 100 deep.
_DEPTHS = (1, 50, 99, 100, 101, 1000, 50_000)
_UNKNOWN_NUMBERS = (19, 999, 18_999, 19_000, 2**29 - 1)
_MANY = (65, 129, 1001, 20_000)

# What is made has about so many bytes at most, which is more than a request may have.
_BYTES_MAX = 5 * 1024 * 1024

# How often a request is made anew that was to have a flaw, and got none.
_TRIES_MAX = 3


def make_request(draws: Draws, rpc: Rpc) -> bytes:
    """Return a request for an rpc."""
    kind = draws.pick(_KINDS)
    made = b""
    for _ in range(_TRIES_MAX):
        flaws = draws.flaws = draws.number(1, _FLAWS_MAX) if kind == "flawed" else 0
        made = _make(draws, rpc)
        if not flaws or draws.flaws < flaws:
            break
    match kind:
        case "cut":
            return made[: draws.number(0, max(len(made) - 1, 0))]
        case "noise":
            return _noise(draws, made)
        case _:
            return made


def _make(draws: Draws, rpc: Rpc) -> bytes:
    seeds = _seeds(rpc)
    if rpc.name == "StartInference" and draws.once_in(2):
        return _play(draws)
    if seeds and draws.once_in(3):
        return draws.pick(seeds)
    return _Maker(draws).message(rpc.method.input_type)


def _noise(draws: Draws, made: bytes) -> bytes:
    """Return random bytes, or a request with some bytes replaced."""
    if draws.once_in(2):
        return bytes(draws.number(0, 255) for _ in range(draws.number(0, 40)))
    noisy = bytearray(made)
    for _ in range(draws.number(1, 4)):
        if noisy:
            noisy[draws.number(0, min(len(noisy), 5000) - 1)] = draws.number(0, 255)
    return bytes(noisy)


def _play(draws: Draws) -> bytes:
    """Return a start that is accepted unless a text inside it is not: it has the engine play a script."""
    start = inference_service_pb2.StartInferenceRequest(profile=draws.pick(("agent", "scripted", "narrow")))
    start.new_session.SetInParent()
    start.input.add(user=turn_pb2.UserBlock(text=texts.word(draws)))
    start.overrides.engine_options = texts.engine_options(draws)
    if start.profile != "narrow":
        if draws.once_in(3):
            start.overrides.output_schema = texts.schema_text(draws)
        for name in ("ask_me", "A-b_9")[: draws.number(0, 2)]:
            start.overrides.tools.add(name=name, approval_required=draws.once_in(2))
    if draws.once_in(3):
        start.overrides.config.iterations_max = draws.number(1, 5)
    return start.SerializeToString()


def _seeds(rpc: Rpc) -> Sequence[bytes]:
    """Return requests that chance would not find: the second page of a listing, and answers that are awaited."""
    if rpc.name in LISTINGS:
        request = listings()[rpc.name]
        request.page_token = page_stand_in(rpc.name)
        return (request.SerializeToString(),)
    if rpc.name == "SubmitToolResults":
        submit = inference_service_pb2.SubmitToolResultsRequest(inference_id=inference_stand_in("waiting"))
        submit.outcomes.add(tool_call="call_1", result="{}")
        approve = inference_service_pb2.SubmitToolResultsRequest(inference_id=inference_stand_in("waiting"))
        approve.outcomes.add(tool_call="call_2", approved=tool_pb2.ToolApproval())
        return (submit.SerializeToString(), approve.SerializeToString())
    if rpc.name == "ReleasePause":
        return tuple(wire.delimited(1, pause.encode()) for pause in values.pauses())
    return ()


@dataclass(slots=True)
class _Maker:
    """Makes one request. `room`: how many bytes it may still have."""

    draws: Draws
    room: int = _BYTES_MAX

    def message(self, descriptor: Descriptor) -> bytes:
        """Return a message of a type."""
        parts = [self._field(field) for field in self._chosen(descriptor)]
        while self.draws.is_flawed(8):
            parts.insert(self.draws.number(0, len(parts)), self._foreign(descriptor))
        if parts and self.draws.is_flawed(16):
            parts.append(self.draws.pick(parts))  # again: of a singular field the last one counts
        if self.draws.is_flawed(24):
            parts.reverse()
        return b"".join(parts)

    def _chosen(self, descriptor: Descriptor) -> list[FieldDescriptor]:
        """Return the fields that are to be set: of each oneof one arm, unless that is the flaw."""
        chosen: list[FieldDescriptor] = []
        arms: dict[str, list[FieldDescriptor]] = {}
        for field in descriptor.fields:
            oneof = field.containing_oneof
            if oneof is not None and len(oneof.fields) > 1:
                arms.setdefault(oneof.name, []).append(field)
            elif _is_needed(field) != self.draws.is_flawed(12) or self.draws.once_in(2):
                chosen.append(field)
        for each in arms.values():
            if not self.draws.is_flawed(12):
                chosen.append(self.draws.pick(each))
            elif self.draws.once_in(2):
                chosen += [self.draws.pick(each), self.draws.pick(each)]
        return chosen

    def _field(self, field: FieldDescriptor) -> bytes:
        rules = load_contract().rules.get(field.full_name, {})
        if self.draws.is_flawed(16):
            return wire.field_of_type(field.number, self.draws.number(0, 7), self.draws.pick((0, 1, 2**63)))
        if not field.is_repeated:
            return self._one(field, rules)
        entry = field.message_type
        if entry is not None and entry.GetOptions().map_entry:
            limits = rules.get("map", {})
            return b"".join(self._entry(field, entry, limits) for _ in range(self._count(limits.get("maxPairs"))))
        limits = rules.get("repeated", {})
        count = self._count(limits.get("maxItems"), int(limits.get("minItems", 0)))
        few = [self._one(field, limits.get("items", {})) for _ in range(min(count, 4))]
        if count <= len(few):
            return b"".join(few)
        times = min(count // len(few), self.room // max(sum(map(len, few)), 1))
        self.room -= times * sum(map(len, few))
        return b"".join(few * max(times, 1))

    def _count(self, most: str | None, least: int = 0) -> int:
        if self.draws.is_flawed(8):
            limits = [int(most), int(most) + 1] if most else []
            counts: list[int] = [max(least - 1, 0), *limits, *_MANY]
            return self.draws.pick(counts)
        return self.draws.number(least, 3)

    def _entry(self, field: FieldDescriptor, entry: Descriptor, limits: Rules) -> bytes:
        key, value = (entry.fields_by_number[number] for number in (1, 2))
        parts = [
            self._one(key, limits.get("keys", {}), field),
            self._one(value, limits.get("values", {}), field),
        ]
        if self.draws.is_flawed(16):
            parts = self.draws.pick((parts[:1], parts[1:], [], parts[::-1], [*parts, wire.delimited(1, b"again")]))
        return wire.delimited(field.number, b"".join(parts))

    def _one(self, field: FieldDescriptor, rules: Rules, owner: FieldDescriptor | None = None) -> bytes:
        """Return one value of a field; `owner` is the map that it is the key or the value of."""
        if field.message_type is None:
            made = values.scalar(self.draws, field, rules, _comment(owner or field), owner)
            self.room -= len(made)
            return made if self.room > 0 else b""
        if self.draws.is_flawed(24):
            return wire.delimited(field.number, self.draws.pick((b"", b"\xff", b"\x00", b"abc", b"\x08" * 9)))
        special = values.SPECIAL.get(field.message_type.full_name)
        made = special(self.draws, rules) if special else self.message(field.message_type)
        return wire.delimited(field.number, made)

    def _foreign(self, descriptor: Descriptor) -> bytes:
        """Return what does not belong into a message."""
        number = self.draws.pick((*_UNKNOWN_NUMBERS, *descriptor.fields_by_number))
        match self.draws.number(0, 4):
            case 0:
                return wire.field_of_type(number, self.draws.number(0, 7), self.draws.pick((0, 1, 2**64 - 1)))
            case 1:
                return wire.nested_groups(number, self.draws.pick(_DEPTHS))
            case 2:
                return wire.nested_messages(number, self.draws.pick(_DEPTHS[:-1]))
            case 3:
                return wire.delimited(number, b"x" * self.draws.pick((0, 1, 100_000)))
            case _:
                return self.draws.pick(wire.BROKEN)


def _comment(field: FieldDescriptor) -> str:
    return field_comments().get(field.full_name, "")


def _is_needed(field: FieldDescriptor) -> bool:
    """Whether a field has to be set: its rule does not hold for what is empty."""
    rules = load_contract().rules.get(field.full_name, {})
    if rules.get("required"):
        return True
    text = rules.get("string", {})
    repeated = rules.get("repeated", {})
    is_checked = ("pattern" in text or "minLen" in text) and "ignore" not in rules
    return (is_checked and not field.has_presence) or "minItems" in repeated

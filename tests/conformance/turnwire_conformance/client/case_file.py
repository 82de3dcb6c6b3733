"""The cases: YAML files beside this one, a topic each, in the form of turnwire.testing.v1.ClientTopic."""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files

import yaml
from google.protobuf.json_format import ParseDict, ParseError

from turnwire.testing.v1.client_conformance_pb2 import ClientCase, ClientTopic
from turnwire.v1 import debug_service_pb2, engine_service_pb2, inference_service_pb2, session_service_pb2
from turnwire_conformance.core_yaml import read_yaml

RPCS = frozenset(
    method.name
    for module in (inference_service_pb2, session_service_pb2, engine_service_pb2, debug_service_pb2)
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
)


class CaseFileError(Exception):
    """A file of cases is not what it has to be."""


@dataclass(frozen=True, slots=True)
class Case:
    """One case of a topic."""

    topic: str
    told: ClientCase

    @property
    def full_name(self) -> str:
        """The name that no other case has: `topic/name`."""
        return f"{self.topic}/{self.told.name}"

    @property
    def cites(self) -> list[str]:
        """The sentences that it proves, each with the element that it stands at."""
        return [f"{cited.element}: {cited.says}" for cited in self.told.cites]


def load_cases() -> list[Case]:
    """Returns all cases, by topic, in the order of their files.

    Raises CaseFileError.
    """
    folder = files("turnwire_conformance.client").joinpath("cases")
    paths = sorted((path for path in folder.iterdir() if path.name.endswith(".yaml")), key=lambda path: path.name)
    return [
        case
        for path in paths
        for case in parse_topic(path.name.removesuffix(".yaml"), path.read_text(encoding="utf-8"))
    ]


def parse_topic(topic: str, text: str) -> list[Case]:
    """Returns the cases that a file holds.

    Raises CaseFileError for what is not a ClientTopic, for a case without a name, a citation or a step, for two cases
    of one name, and for a case that is about an rpc or about sequences that cannot be.
    """
    try:
        told = ParseDict(read_yaml(text), ClientTopic())
    except (ParseError, yaml.YAMLError) as error:
        raise CaseFileError(f"{topic}.yaml: {error}") from error
    names = [case.name for case in told.cases]
    for case in told.cases:
        for complaint in _complaints(case):
            raise CaseFileError(f"{topic}.yaml: {case.name}: {complaint}")
        if not (case.name and case.cites and case.steps):
            raise CaseFileError(f"{topic}.yaml: {case.name or 'a case'} needs a name, a citation and a step")
        if names.count(case.name) > 1:
            raise CaseFileError(f"{topic}.yaml: {case.name} comes twice")
    return [Case(topic, case) for case in told.cases]


def sequences(text: str) -> list[int]:
    """Returns the numbers that `1-4, 6` names; `none` names none.

    Raises ValueError.
    """
    found: list[int] = []
    for part in text.split(",") if text != "none" else ():
        first, _, last = part.strip().partition("-")
        found += range(int(first), int(last or first) + 1)
    return found


def _complaints(case: ClientCase) -> Iterator[str]:
    """A misspelt rpc would never be called, and what is expected of it would hold."""
    for rpc in [*(fault.rpc for fault in case.faults), *(seen.rpc for seen in case.seen)]:
        if rpc not in RPCS:
            yield f"{rpc} is no rpc"
    for step in case.steps:
        try:
            sequences(step.expected.sequences or "none")
        except ValueError:
            yield f"{step.expected.sequences} names no sequences"

"""The cases as they are read: YAML files that are turnwire.testing.v1.Suite, or Situations, in ProtoJSON."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from types import MappingProxyType
from typing import Any, TypeVar

import yaml
from google.protobuf import json_format
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct

from turnwire.testing.v1.conformance_pb2 import Citation, Situations, Step, Suite
from turnwire_conformance.core_yaml import read_yaml
from turnwire_conformance.values import CaseError, whole

SITUATIONS_FILE = "situations.yaml"

M = TypeVar("M", bound=Message)


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a case: its topic, its own name (that of the case, and of the row), and what it does.

    `row` are the variables of its row; `steps` begin with those of its situation.
    """

    topic: str
    name: str
    proves: tuple[Citation, ...]
    arrangement: str
    row: Mapping[str, Any]
    steps: tuple[Step, ...]

    @property
    def full_name(self) -> str:
        """The name that no other run has: `cancel/queued-ends-at-once`."""
        return f"{self.topic}/{self.name}"

    @property
    def cites(self) -> tuple[str, ...]:
        """What it proves, as texts: `turnwire.v1.InferenceService.Wait: It holds ...`."""
        return tuple(f"{each.element}: {each.says}" for each in self.proves)


def own_cases() -> Traversable:
    """Return the folder of the cases that come with this package."""
    return resources.files("turnwire_conformance") / "cases"


def load_runs(folder: Traversable | None = None) -> list[Run]:
    """Return the runs of all cases of a folder, topic by topic. Errors: CaseError, with the file's name."""
    at = folder or own_cases()
    files = sorted((each for each in at.iterdir() if each.name.endswith(".yaml")), key=lambda each: each.name)
    situations = Situations()
    for file in files:
        if file.name == SITUATIONS_FILE:
            _read(file, situations)
    runs = [run for file in files if file.name != SITUATIONS_FILE for run in _runs(_read(file, Suite()), situations)]
    names = [run.full_name for run in runs]
    if twice := {name for name in names if names.count(name) > 1}:
        msg = f"more than one case is named {', '.join(sorted(twice))}"
        raise CaseError(msg)
    return runs


@cache
def load_own_runs() -> Sequence[Run]:
    """Return the runs of the cases that come with this package."""
    return tuple(load_runs())


def _read(file: Traversable, kind: M) -> M:
    try:
        return json_format.ParseDict(read_yaml(file.read_text(encoding="utf-8")), kind)
    except (yaml.YAMLError, json_format.ParseError) as error:
        msg = f"{file.name}: {error}"
        raise CaseError(msg) from None


def _runs(suite: Suite, situations: Situations) -> Iterator[Run]:
    for case in suite.cases:
        steps = (*_steps_to(case.after, situations), *case.steps)
        if not case.proves or not case.steps:
            msg = f"{suite.topic}/{case.name} has no step, or proves nothing"
            raise CaseError(msg)
        for row in case.rows or (Struct(),):
            values: dict[str, Any] = whole(json_format.MessageToDict(row))
            named = f"{case.name}[{_label(values, case.name)}]" if values else case.name
            yield Run(suite.topic, named, tuple(case.proves), case.arrangement, MappingProxyType(values), steps)


def _label(row: Mapping[str, Any], name: str) -> str:
    """Return the name of a row, without spaces: its `row`, or its values in the order of their names.

    Errors: CaseError for a row that needs a name of its own: what is no scalar makes none.
    """
    if "row" not in row and any(isinstance(each, Mapping | list) for each in row.values()):
        msg = f"{name}: a row with a value that is no scalar needs a `row`: {dict(row)}"
        raise CaseError(msg)
    values = (f"{each:g}" if isinstance(each, float) else str(each) for _, each in sorted(row.items()))
    told = str(row.get("row") or "-".join(values))
    return re.sub(r"[^\w.$-]+", "-", told)


def _steps_to(name: str, situations: Situations) -> Iterable[Step]:
    """Return the steps that lead to a situation."""
    if not name:
        return ()
    if name not in situations.situations:
        msg = f"there is no situation {name}; there are {', '.join(sorted(situations.situations))}"
        raise CaseError(msg)
    situation = situations.situations[name]
    return (*_steps_to(situation.after, situations), *situation.steps)

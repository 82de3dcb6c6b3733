"""The files of cases mean the same to whoever reads them: YAML 1.2, core schema."""

import math
from typing import Any

import pytest
import yaml

from turnwire_conformance.case import own_cases
from turnwire_conformance.core_yaml import read_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("010", 10),
        ("0o10", 8),
        ("0x1F", 31),
        ("-7", -7),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("-.inf", -math.inf),
        ("yes", "yes"),
        ("on", "on"),
        ("no", "no"),
        ("2026-01-01", "2026-01-01"),
        ("1_000", "1_000"),
        ("1:30", "1:30"),
        ("0.3s", "0.3s"),
        ("=", "="),
    ],
)
def test_what_is_plain_is_of_the_core_schema(text: str, value: object) -> None:
    found: list[Any] = read_yaml(f"[{text}]") if text else [read_yaml("a:")["a"]]
    assert (found, type(found[0])) == ([value], type(value))


def test_nan_is_a_number() -> None:
    assert math.isnan(read_yaml(".NaN"))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{a: &a {b: 1}, c: {<<: *a}}", "`<<` is a merge key"),
        ("{a: 1, b: 2, a: 3}", "`a` comes twice"),
        ("!!python/object/apply:os.getcwd []", "could not determine a constructor"),
    ],
)
def test_what_readers_differ_in_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(yaml.YAMLError, match=complaint):
        read_yaml(text)


def test_the_file_of_a_case_is_read_so() -> None:
    text = own_cases().joinpath("validation.yaml").read_text(encoding="utf-8")
    assert read_yaml(text)["topic"] == "validation"

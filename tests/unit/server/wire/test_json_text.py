import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnwire_server.wire.json_text import (
    map_violations,
    object_violations,
    schema_violations,
    value_violations,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@given(JSON)
def test_json_is_json(value: Any) -> None:
    text = json.dumps(value)
    assert list(value_violations("f", text)) == []
    assert (not list(object_violations("f", text))) is isinstance(value, dict)


@pytest.mark.parametrize("text", ["true", "false", "{}", ' {"type": "object"} ', ""])
def test_schemas(text: str) -> None:
    assert list(schema_violations("f", text)) == []


@pytest.mark.parametrize("text", ["null", "[]", "1", "truee", "{", '"true"'])
def test_no_schemas(text: str) -> None:
    assert [violation.rule for violation in schema_violations("f", text)] == ["json_schema"]


def test_integers_longer_than_python_converts() -> None:
    assert list(value_violations("f", "9" * 10_000)) == []


def test_deep_nesting_is_refused_and_does_no_harm() -> None:
    assert len(list(value_violations("f", "[" * 200_000))) == 1


def test_paths_of_maps_are_those_of_protovalidate() -> None:
    assert [violation.field for violation in map_violations("m", {'a"b': "x", "ü": "y", "good": "1"})] == [
        'm["a\\"b"]',
        'm["ü"]',
    ]

"""Schemas of what models write."""

import json
import time
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from turnwire_server.tools.schema import DEPTH_MAX, NO_ARGUMENTS, SCHEMA_BYTES_MAX, compile_schema

Json = dict[str, Any]

POINT: Json = {
    "type": "object",
    "properties": {"x": {"type": "integer"}, "a/b": {"type": "string"}, "é ~%": {"type": "string"}},
    "required": ["x"],
    "additionalProperties": False,
}
TREE: Json = {
    "$defs": {
        "node": {
            "anyOf": [
                {"type": "integer"},
                *(
                    {
                        "type": "object",
                        "properties": {
                            "op": {"const": op},
                            "l": {"$ref": "#/$defs/node"},
                            "r": {"$ref": "#/$defs/node"},
                        },
                        "required": ["op", "l", "r"],
                    }
                    for op in ("add", "sub")
                ),
            ]
        }
    },
    "$ref": "#/$defs/node",
}


def violation(schema: object, value: object) -> str:
    return compile_schema(json.dumps(schema)).violation(json.dumps(value))


def tower(floors: int, keyword: str = "anyOf") -> Json:
    """A schema of a few bytes that stands for 2 ** floors parts."""
    defs: Json = {f"a{n}": {keyword: [{"$ref": f"#/$defs/a{n + 1}"}] * 2} for n in range(floors)}
    defs[f"a{floors}"] = {"type": "string"}
    return {"$defs": defs, "$ref": "#/$defs/a0"}


def base_inside(keyword: str, dialect: str = "https://json-schema.org/draft/2020-12/schema") -> Json:
    """A schema with a tower inside, whose references mean something small if they are read from the outside."""
    inner = {keyword: "urn:inner", **tower(60)}
    return {
        "$schema": dialect,
        "$defs": {**{name: {} for name in inner["$defs"]}, "inner": inner},
        "$ref": "#/$defs/inner",
    }


def unevaluated(floors: int, keyword: str) -> Json:
    schema: Json = {}
    for _ in range(floors):
        schema = {"allOf": [schema], keyword: {"type": "integer"}}
    return schema


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ('{"minimum": NaN}', "not JSON: it has NaN"),
        ('"text"', 'is not of types "boolean", "object"'),
        ('{"type": "number of"}', '"number of" is not valid'),
        ('{"pattern": "("}', 'is not a "regex"'),
        ('{"$ref": "#/$defs/nothing"}', "there is nothing at #/$defs/nothing"),
        ('{"$ref": "#anchor"}', "a reference has to be # or begin with #/"),
        ('{"$ref": "http://127.0.0.1:1/schema"}', "a reference has to be # or begin with #/"),
        ('{"$ref": "file:///etc/hostname"}', "a reference has to be # or begin with #/"),
        ('{"$schema": "http://127.0.0.1:1/schema"}', "Unknown meta-schema"),
        ('{"not": ' * 200 + "{}" + "}" * 200, f"nested deeper than {DEPTH_MAX} levels"),
        (json.dumps({"description": "x" * SCHEMA_BYTES_MAX}), f"more than {SCHEMA_BYTES_MAX} bytes"),
        (json.dumps(tower(40)), "stands for more than"),
        (json.dumps(tower(600)), "nested too deeply"),
        (json.dumps(base_inside("$id")), "has an $id of its own"),
        (json.dumps(base_inside("$id", "http://json-schema.org/draft-07/schema#")), "has an $id of its own"),
        (json.dumps(base_inside("id", "http://json-schema.org/draft-04/schema#")), "has an id of its own"),
        (json.dumps(unevaluated(20, "unevaluatedProperties")), "stands for more than"),
    ],
)
def test_what_is_no_usable_schema_is_refused(schema: str, said: str) -> None:
    began = time.monotonic()
    with pytest.raises(ValueError, match="the schema") as refused:
        compile_schema(schema)
    assert said in str(refused.value)
    assert time.monotonic() - began < 1


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"x": 1}, ""),
        ({"x": 1.0}, ""),
        ({"x": 10**400}, ""),
        ([], '$: [] is not of type "object"'),
        ({}, '$: "x" is a required property'),
        ({"x": "1"}, '$.x: "1" is not of type "integer"'),
        ({"x": 1, "y": 2}, "$: Additional properties are not allowed ('y' was unexpected)"),
        ({"x": 1, "a/b": 2}, '$.a/b: 2 is not of type "string"'),
        ({"x": 1, "é ~%": 2}, '$.é ~%: 2 is not of type "string"'),
    ],
)
def test_a_violation_says_what_is_wrong_and_where(value: object, said: str) -> None:
    assert violation(POINT, value) == said


@pytest.mark.parametrize(
    ("schema", "value", "said"),
    [
        ({"$defs": {"p": POINT}, "properties": {"p": {"$ref": "#/$defs/p"}}}, {"p": {"x": []}}, "$.p.x: [] is not"),
        ({"$defs": {"é ": POINT}, "allOf": [{"$ref": "#/$defs/%C3%A9%20"}]}, {"x": []}, "$.x: [] is not"),
        ({"allOf": [{}, POINT]}, {"x": []}, "$.x: [] is not"),
        ({"items": POINT}, [{"x": 1}, {"x": []}], "$[1].x: [] is not"),
        ({"prefixItems": [{}, POINT], "items": {"type": "null"}}, [1, {"x": 1}, 2], "$[2]: 2 is not"),
        ({"prefixItems": [{}, POINT]}, [1, {"x": []}], "$[1].x: [] is not"),
        ({"additionalProperties": POINT}, {"a": {"x": []}}, "$.a.x: [] is not"),
        ({"anyOf": [POINT, {"type": "null"}]}, {"x": []}, "$.x: [] is not"),
        ({"oneOf": [{"type": "string"}, {"type": "null"}]}, 1, "$: none of the alternatives is satisfied"),
        ({"not": {"type": "null"}}, None, "$: # of the schema is not satisfied"),
        (False, None, "$: # of the schema is not satisfied"),
        ({"propertyNames": {"maxLength": 1}}, {"long": 1}, "$: # of the schema is not satisfied"),
        (TREE, {"op": "add", "l": 1, "r": {"op": "sub", "l": "1", "r": 1}}, "$.r.l: none of the alternatives"),
        (TREE, {"op": "add", "l": 1, "r": {"op": "sub", "l": 1}}, '$.r: "r" is a required property'),
    ],
)
def test_a_violation_is_told_where_it_is_innermost(schema: object, value: object, said: str) -> None:
    assert violation(schema, value).startswith(said)


@pytest.mark.parametrize("keyword", ["anyOf", "allOf", "oneOf"])
@pytest.mark.parametrize("is_valid", [True, False])
def test_no_value_keeps_the_process(keyword: str, is_valid: bool) -> None:
    nested: Json = {keyword: [{"properties": {"a": {"$ref": "#"}}, "required": ["a"]}] * 3, "type": "object"}
    value: object = {} if is_valid else 1
    for _ in range(100):
        value = {"a": value}
    schemas = (nested, tower(8, keyword), TREE)
    wide = {f"k{n}": n for n in range(1000)}
    began = time.monotonic()
    for schema in schemas:
        violation(schema, value)
    for floors in (2, 7):
        violation(unevaluated(floors, "unevaluatedProperties"), wide)
        violation(unevaluated(floors, "unevaluatedItems"), list(wide.values()))
    assert time.monotonic() - began < 1


def test_a_schema_may_have_an_id_and_properties_that_are_called_so() -> None:
    schema = {
        "$id": "urn:all",
        "properties": {"$id": {"$ref": "#/$defs/n"}, "id": True},
        "$defs": {"n": {"type": "null"}},
    }
    assert violation(schema, {"$id": None, "id": 1}) == ""
    assert violation(schema, {"$id": 1}).startswith("$.$id: 1 is not")


@pytest.mark.parametrize("pattern", ["^(a+)+$", r"^(?=a)(a|aa)+\1$", "(?=(a|aa|aaa)*x)b", "(?!.*x)(?:.*)*z"])
def test_no_pattern_keeps_the_process(pattern: str) -> None:
    schema = compile_schema(json.dumps({"pattern": pattern}))
    began = time.monotonic()
    for length in (100, 60_000, 2_000_000):
        assert schema.violation(json.dumps("a" * length + "!"))
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("pattern", [r"^\p{L}{1,20}$", "(?:[a-z]{80}){90}", "(?=a)(?:[a-z]{80}){90}", "[a-z]+"])
@pytest.mark.parametrize("count", [2, 100, 500])
def test_many_patterns_are_compiled_soon_or_refused(pattern: str, count: int) -> None:
    patterns = [{"pattern": f"{pattern}{n}"} for n in range(count // 2)]
    schema = {"allOf": patterns, "patternProperties": {f"{pattern}{n}-": {} for n in range(count // 2)}}
    began = time.monotonic()
    try:
        compile_schema(json.dumps(schema))
    except ValueError as error:
        assert 'is not a "regex"' in str(error)  # noqa: PT017 - either is right
        assert count > 2
    assert time.monotonic() - began < 5


def test_a_pattern_may_look_around() -> None:
    password = {"pattern": r"^(?=.*\d)(?!.*\s).{8,}$"}
    assert violation(password, "abcdefg1") == ""
    assert "does not match" in violation(password, "abcdefgh")


def test_what_would_take_too_long_is_not_looked_at() -> None:
    many = {"items": {"anyOf": [{"const": n} for n in range(1000)]}}
    assert violation(many, [0] * 100) == ""
    assert violation(many, [0] * 100_000) == "the value is too large to be checked against its schema"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("", "the value is not JSON"),
        ("NaN", "the value is not JSON: it has NaN"),
        ("[1", "the value is not JSON"),
        ("[" * 100_000, "the value is not JSON"),
        ("[" * 200 + "]" * 200, f"the value is nested deeper than {DEPTH_MAX} levels"),
        ("[" * DEPTH_MAX + "]" * DEPTH_MAX, ""),
        ("[" + "[],{}," * 200 + "1]", ""),
    ],
)
def test_a_value_is_json_of_a_certain_depth(value: str, said: str) -> None:
    assert compile_schema("true").violation(value)[: len(said) or None] == said


def test_a_violation_is_not_longer_than_somebody_reads() -> None:
    assert len(violation({"type": "null"}, "x" * 100_000)) < 1100
    assert len(violation({"required": [f"p{n}" for n in range(1000)]}, {})) < 1100


def test_no_arguments() -> None:
    assert compile_schema(NO_ARGUMENTS).violation("{}") == ""
    assert compile_schema(NO_ARGUMENTS).violation('{"a": 1}')


SCALARS = st.sampled_from([None, True, 0, 1, 1.5, "", "a", "b"])
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2)
)
LEAVES = st.sampled_from(
    [
        True,
        False,
        {"type": "integer"},
        {"type": ["string", "null"]},
        {"const": "a"},
        {"required": ["a"]},
        {"minimum": 1},
    ]
)
SCHEMAS = st.recursive(
    LEAVES,
    lambda inner: st.fixed_dictionaries(
        {},
        optional={
            "properties": st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
            "patternProperties": st.dictionaries(st.just("^b"), inner, max_size=1),
            "additionalProperties": inner,
            "items": inner,
            "prefixItems": st.lists(inner, min_size=1, max_size=2),
            "anyOf": st.lists(inner, min_size=1, max_size=3),
            "oneOf": st.lists(inner, min_size=1, max_size=3),
            "allOf": st.lists(inner, min_size=1, max_size=2),
            "not": inner,
            "type": st.sampled_from(["object", "array", "integer"]),
        },
    ),
    max_leaves=8,
)


@settings(deadline=None)
@given(SCHEMAS, VALUES)
def test_there_is_a_violation_where_the_library_finds_one(schema: Any, value: object) -> None:
    assert (violation(schema, value) == "") == jsonschema_rs.is_valid(schema, value)

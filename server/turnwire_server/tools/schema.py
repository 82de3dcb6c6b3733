"""JSON Schemas (draft 2020-12, unless they name another one) of what models write: arguments, and structured output.

Schemas come from clients and tools, values from models, and a check keeps the whole process. So a schema reads nothing
but itself, and how much work a check can be is known before it begins.
"""

import json
from collections.abc import Iterator, Mapping
from functools import cached_property, lru_cache
from typing import Any, cast
from urllib.parse import unquote

import jsonschema_rs
from jsonschema_rs import FancyRegexOptions, RegexOptions, Validator, ValidatorMap

# The schema of a tool that says nothing: an object without properties.
NO_ARGUMENTS = '{"type": "object", "additionalProperties": false}'

# A larger schema is refused (contract: Tool.input_schema).
SCHEMA_BYTES_MAX = 65_536

# How many parts a schema may have, each reference followed. A few references to references can stand for millions of
# parts, and each of them is looked at: such a schema is refused.
PARTS_MAX = 20_000

# How often the library looks at what stands beside `unevaluatedProperties` or `unevaluatedItems`: once to check it, and
# again to see what it has evaluated. These keywords can be nested, and so do their looks multiply.
UNEVALUATED_LOOKS = 3

# How many looks at a part a check may take, at some 10 ns each. A value that would take more does not satisfy.
LOOKS_MAX = 20_000_000

# A pattern that looks around or back is tried anew at each byte, and takes this many steps at most, at some 2 ns each:
# then it does not match. All others take linear time.
BACKTRACKS_MAX = 1000
BACKTRACKING_BYTES_MAX = 1_048_576

# How large all patterns of a schema together may become, and a single one. What is larger is refused.
PATTERNS_BYTES_MAX = 33_554_432
PATTERN_BYTES_MAX = 4_194_304

# How deep a value may be nested. A deeper one does not satisfy any schema.
DEPTH_MAX = 128

# How much a violation says.
VIOLATION_LENGTH_MAX = 1000
VIOLATIONS_MAX = 5

# The keywords that say something about parts of a value, or about the value by other schemas.
_APPLICATORS = frozenset(
    {
        "$ref", "$dynamicRef", "$recursiveRef", "$defs", "definitions", "allOf", "anyOf", "oneOf", "not", "if", "then",
        "else", "dependentSchemas", "dependencies", "properties", "patternProperties", "additionalProperties",
        "propertyNames", "unevaluatedProperties", "items", "prefixItems", "additionalItems", "contains", "minContains",
        "maxContains", "unevaluatedItems",
    }
)  # fmt: skip

Pointer = str
Step = tuple[Pointer, object, str]


class Schema:
    """One schema that is ready to be used. See compile_schema."""

    def __init__(self, text: str) -> None:
        root: object = _read(text, "the schema")
        try:
            count = _Count(root)
            self._part_count = count.of_all()
            size_max = min(PATTERN_BYTES_MAX, PATTERNS_BYTES_MAX // max(count.patterns, 1))
            patterns: RegexOptions | FancyRegexOptions = RegexOptions(size_limit=size_max)
            try:
                self._validator = self._compile(text, patterns)
                self._backtracking_count = 0
            except jsonschema_rs.ValidationError as error:
                if "pattern" not in error.schema_path and "format" not in error.schema_path:
                    raise
                patterns = FancyRegexOptions(backtrack_limit=BACKTRACKS_MAX, size_limit=size_max)
                self._validator = self._compile(text, patterns)
                self._backtracking_count = count.patterns
        except RecursionError:
            msg = "the schema is nested too deeply"
            raise ValueError(msg) from None
        except ValueError as error:  # a ValidationError of the library, too
            msg = f"the schema is not valid: {_cut(getattr(error, 'message', str(error)))}"
            raise ValueError(msg) from None
        self._root, self._text, self._patterns = root, text, patterns

    def violation(self, value_text: str) -> str:
        """Return what is wrong with a value, which is JSON text, for whoever wrote it; "" when it satisfies."""
        try:
            value: object = _read(value_text, "the value")
        except ValueError as error:
            return str(error)
        looks = self._part_count * (1 + value_text.count(",") + value_text.count("[") + value_text.count("{"))
        if looks > LOOKS_MAX or self._backtracking_count * len(value_text) > BACKTRACKING_BYTES_MAX:
            return "the value is too large to be checked against its schema"
        if self._validator.is_valid(value):
            return ""
        return self._explain(value)

    @staticmethod
    def _compile(text: str, patterns: RegexOptions | FancyRegexOptions) -> Validator:
        return jsonschema_rs.validator_for(text, offline=True, pattern_options=patterns)

    @cached_property
    def _parts(self) -> ValidatorMap:
        return jsonschema_rs.validator_map_for(self._text, offline=True, pattern_options=self._patterns)

    def _explain(self, value: object) -> str:
        """Say what is wrong where it is wrong.

        The library can list errors itself, and takes exponential time for it where alternatives are nested. Whether a
        part is valid it knows at once: so we go down to the innermost part that is not, and have only that one listed.
        """
        pointer, path = "#", "$"
        for _ in range(PARTS_MAX):
            step = next((step for step in self._steps(pointer, value) if not self._is_valid(step)), None)
            if step is None:
                break
            pointer, value, name = step
            path += name
        errors = [error.message for error in self._shallow(pointer).iter_errors(value)][:VIOLATIONS_MAX]
        return _cut(f"{path}: {'; '.join(errors) or self._hint(pointer)}")

    def _is_valid(self, step: Step) -> bool:
        part = self._parts.get(step[0])
        return part is None or part.is_valid(step[1])

    def _steps(self, pointer: Pointer, value: object) -> Iterator[Step]:
        """List the parts that all have to be valid, each with what it is about."""
        part = self._at(pointer)
        if isinstance(ref := part.get("$ref"), str):
            yield unquote(ref), value, ""
        for number, _ in enumerate(_list(part.get("allOf"))):
            yield f"{pointer}/allOf/{number}", value, ""
        for keyword in ("anyOf", "oneOf"):
            choices = [f"{pointer}/{keyword}/{number}" for number, _ in enumerate(_list(part.get(keyword)))]
            meant = [choice for choice in choices if self._kind(self._target(choice)).is_valid(value)]
            if len(meant) == 1:
                yield meant[0], value, ""
        if isinstance(value, dict):
            properties = _dict(part.get("properties"))
            for name, item in cast("dict[str, object]", value).items():
                if name in properties:
                    yield f"{pointer}/properties/{_escape(name)}", item, f".{name}"
                elif isinstance(part.get("additionalProperties"), dict) and "patternProperties" not in part:
                    yield f"{pointer}/additionalProperties", item, f".{name}"
        if isinstance(value, list):
            prefix = len(_list(part.get("prefixItems")))
            for number, item in enumerate(cast("list[object]", value)):
                where = f"prefixItems/{number}" if number < prefix else "items"
                yield f"{pointer}/{where}", item, f"[{number}]"

    def _shallow(self, pointer: Pointer) -> Validator:
        """Return what a part says about a value itself, and whether it may have other properties."""
        part = self._at(pointer)
        alone: dict[str, object] = {keyword: said for keyword, said in part.items() if keyword not in _APPLICATORS}
        if part.get("additionalProperties") is False:
            alone |= {"additionalProperties": False, "properties": dict.fromkeys(_dict(part.get("properties")), True)}
            alone["patternProperties"] = dict.fromkeys(_dict(part.get("patternProperties")), True)
        return self._compile(json.dumps(alone), self._patterns)

    def _kind(self, pointer: Pointer) -> Validator:
        """Return what tells an alternative from the others: its type, and constants, also of its properties."""
        part = self._at(pointer)
        kind: dict[str, object] = {keyword: part[keyword] for keyword in ("type", "const", "enum") if keyword in part}
        properties = _dict(part.get("properties")).items()
        kind["properties"] = {name: {"const": said["const"]} for name, said in properties if "const" in _dict(said)}
        return self._compile(json.dumps(kind), self._patterns)

    def _target(self, pointer: Pointer) -> Pointer:
        ref = self._at(pointer).get("$ref")
        return unquote(ref) if isinstance(ref, str) else pointer

    def _at(self, pointer: Pointer) -> Mapping[str, Any]:
        return _dict(_find(self._root, pointer))

    def _hint(self, pointer: Pointer) -> str:
        choices = _list(self._at(pointer).get("anyOf")) or _list(self._at(pointer).get("oneOf"))
        return "none of the alternatives is satisfied" if choices else f"{pointer} of the schema is not satisfied"


@lru_cache(maxsize=256)  # what a process needs at a time; another one is compiled again
def compile_schema(text: str) -> Schema:
    """Return the schema that a JSON text is.

    Errors: ValueError when it is no valid schema, too large, too complex, or refers to anything but itself. The message
    is for whoever sent it.
    """
    if len(text.encode("utf-8", "surrogatepass")) > SCHEMA_BYTES_MAX:
        msg = f"the schema has more than {SCHEMA_BYTES_MAX} bytes"
        raise ValueError(msg)
    return Schema(text)


class _Count:
    """Counts the parts of a schema with every reference followed, but for one that leads to itself.

    Those are looked at once for each part of a value, since the library remembers them.
    """

    def __init__(self, root: object) -> None:
        self._root = root
        self._known: dict[str, int] = {"#": 1}
        self._base = "id" if "draft-04" in str(_dict(root).get("$schema")) else "$id"
        self.patterns = 0

    def of_all(self) -> int:
        count = self._of(self._root)
        if count > PARTS_MAX:
            msg = f"it stands for more than {PARTS_MAX} parts; have fewer references to references"
            raise ValueError(msg)
        return count

    def _of(self, part: object) -> int:
        if isinstance(part, list):
            return sum(map(self._of, cast("list[object]", part)))
        if not isinstance(part, dict):
            return 1
        said = cast("dict[str, object]", part)
        if said is not self._root and isinstance(said.get(self._base), str):
            # References inside would begin there, and what stands at them would not be what is counted here.
            msg = f"a part of it has an {self._base} of its own; have one for the whole schema, or none"
            raise ValueError(msg)
        self.patterns += isinstance(said.get("pattern"), str) + len(_dict(said.get("patternProperties")))
        count = 1 + sum(map(self._of, said.values()))
        for keyword in ("$ref", "$dynamicRef", "$recursiveRef"):
            if isinstance(ref := said.get(keyword), str):
                count += self._behind(ref)
        for keyword in ("unevaluatedProperties", "unevaluatedItems"):
            count *= UNEVALUATED_LOOKS if keyword in said else 1
        return count

    def _behind(self, ref: str) -> int:
        if ref not in self._known:
            self._known[ref] = 1
            self._known[ref] = self._of(_find(self._root, unquote(ref)))
        return self._known[ref]


def _find(root: object, pointer: Pointer) -> object:
    """Return the part at a pointer, `#` or `#/...`. Errors: ValueError."""
    if pointer != "#" and not pointer.startswith("#/"):
        msg = f"{pointer} is not in it: a reference has to be # or begin with #/"
        raise ValueError(msg)
    part = root
    for name in (each.replace("~1", "/").replace("~0", "~") for each in pointer.split("/")[1:]):
        if isinstance(part, list) and name.isdecimal() and int(name) < len(cast("list[object]", part)):
            part = cast("list[object]", part)[int(name)]
        elif isinstance(part, dict) and name in part:
            part = cast("dict[str, object]", part)[name]
        else:
            msg = f"there is nothing at {pointer}"
            raise ValueError(msg)
    return part


def _read(text: str, what: str) -> object:
    """Return what a JSON text says. Errors: ValueError."""
    try:
        value: object = json.loads(text, parse_constant=_refuse)
        if "\\u" in text:  # half of a surrogate pair can be written as JSON, but is no text: nobody could be told of it
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        msg = f"{what} is not JSON: {error}"
        raise ValueError(msg) from None
    if text.count("[") + text.count("{") > DEPTH_MAX and _is_deep(value):
        msg = f"{what} is nested deeper than {DEPTH_MAX} levels"
        raise ValueError(msg)
    return value


def _refuse(constant: str) -> None:
    msg = f"it has {constant}"
    raise ValueError(msg)


def _is_deep(value: object) -> bool:
    level: list[object] = [value]
    for _ in range(DEPTH_MAX + 1):
        inner: list[object] = []
        for item in level:
            if isinstance(item, dict):
                inner.extend(cast("dict[str, object]", item).values())
            elif isinstance(item, list):
                inner.extend(cast("list[object]", item))
        if not inner:
            return False
        level = inner
    return True


def _dict(value: object) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _list(value: object) -> list[object]:
    return cast("list[object]", value) if isinstance(value, list) else []


def _escape(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")


def _cut(text: str) -> str:
    return text if len(text) <= VIOLATION_LENGTH_MAX else text[: VIOLATION_LENGTH_MAX - 1] + "…"

"""YAML as the files of cases are written: 1.2, core schema, without merge keys, and no key of a mapping twice."""

import re
from collections.abc import Hashable
from typing import Any, cast

import yaml


def read_yaml(text: str) -> Any:
    """Return what a file says: mappings, lists, texts, numbers, booleans and null.

    What only YAML 1.1 has is text: `yes`, `on`, dates, `1_000`, `1:30`. `<<` is refused, so that a reader of any
    language gets the same. Errors: yaml.YAMLError.
    """
    return yaml.load(text, Loader=_CoreLoader)


class _CoreLoader(yaml.SafeLoader):
    """The core schema, as chapter 10.3 of YAML 1.2.2 has it."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Make a mapping. Errors: ConstructorError for a key that comes twice, and for `<<`."""
        told: list[str] = [str(key.value) for key, _ in node.value]
        for name in told:
            if name == "<<" or told.count(name) > 1:
                what = "is a merge key" if name == "<<" else "comes twice"
                raise yaml.constructor.ConstructorError(None, None, f"`{name}` {what}", node.start_mark)
        return super().construct_mapping(node, deep)

    def make_int(self, node: yaml.ScalarNode) -> int:
        """Make an integer: decimal also with a leading 0, octal after 0o, hexadecimal after 0x."""
        text = str(self.construct_scalar(node))
        return int(text, 0) if text[:2] in {"0o", "0x"} else int(text)

    def make_float(self, node: yaml.ScalarNode) -> float:
        """Make a number with a fraction or an exponent, `.inf` or `.nan`."""
        return float(re.sub(r"\.(?=inf|nan)", "", str(self.construct_scalar(node)).lower()))


_CoreLoader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("null", r"^(?:null|Null|NULL|~|)$", ["n", "N", "~", ""]),
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    ("int", r"^(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$", list("-+0123456789")),
    (
        "float",
        r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$",
        list("-+.0123456789"),
    ),
):
    cast("Any", _CoreLoader).add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), _first)
_CoreLoader.add_constructor("tag:yaml.org,2002:int", _CoreLoader.make_int)
_CoreLoader.add_constructor("tag:yaml.org,2002:float", _CoreLoader.make_float)

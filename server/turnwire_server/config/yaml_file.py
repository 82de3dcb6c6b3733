"""Reading a YAML file that an operator wrote."""

from pathlib import Path
from typing import Any

import yaml

from turnwire_server.config.error import ConfigError


def read_yaml(what: str, path: str) -> Any:
    """Return the content of a file; `what` it is appears in the errors. Errors: ConfigError."""
    try:
        with Path(path).open(encoding="utf-8") as file:  # not its text, of which errors would show the line: it may
            return yaml.load(file, _Loader)  # have a secret
    except OSError as error:
        msg = f"cannot read the {what} {path}: {error.strerror}"
    except UnicodeDecodeError:
        msg = f"the {what} {path} is not UTF-8"
    except yaml.YAMLError as error:
        msg = f"the {what} {path} is not YAML: {error}"
    except RecursionError:
        msg = f"the {what} {path} is nested too deep"
    raise ConfigError(msg)


class _Loader(yaml.SafeLoader):
    """Refuses a key that is there twice, of which YAML's own loader keeps the last one without a word."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if (key.tag, key.value) in seen:
                    problem = f"the key {key.value} is there twice; remove one"
                    raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
                seen.add((key.tag, key.value))
        return node

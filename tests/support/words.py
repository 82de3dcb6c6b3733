"""The word that is never used: the ancestors' second name for the identity of a session."""

import re
from collections.abc import Iterable
from pathlib import Path

# On its own or in a snake_case or kebab-case name, in any case of letters; and at the end of a camelCase name.
_FORBIDDEN = re.compile(r"(?<![A-Za-z])(?i:run[_-]?ids?)(?![a-z])|(?<=[a-z])RunI[dD]s?(?![a-z])")


def forbidden_words(text: str) -> list[str]:
    """Return each use of the word in a text, such as the log of a server."""
    return [match[0] for match in _FORBIDDEN.finditer(text)]


def forbidden_uses(files: Iterable[Path]) -> list[str]:
    """Return `path:line: word` for each use of the word in some files."""
    return [
        f"{path}:{number}: {match[0]}"
        for path in files
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        for match in _FORBIDDEN.finditer(line)
    ]

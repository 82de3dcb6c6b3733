"""The sentences of the contract that bind clients, of those that support.statements reads."""

import re
from collections.abc import Iterator, Mapping
from functools import cache

from support.statements import contract_statements, plain

_BINDS = re.compile(r"\b(MUST|SHOULD)\b")
_CLIENT = re.compile(r"\b[Cc]lients?\b")

# Who is bound by a sentence that has no subject: whoever sends the request, or reads the stream.
_PASSIVE = ("MUST be resumed", "MUST be the same as then", "`log` SHOULD be set")

# "It MUST" is about whom a sentence before it names: one of so many.
_BEFORE = 2

# What names clients, and binds somebody else. Each says who.
NOT_OURS: Mapping[str, str] = {
    "For a call that the client executes they come back with tools.required, so all that do MUST NOT have more than 32"
    " KiB together: that is INVALID_FIELD.": "whoever approves; the server refuses it",
}

Sentence = tuple[str, str]


def sentence(element: str, says: str) -> Sentence:
    """A citation as the contract's statements are: it names a whole one, however its lines are broken."""
    return element, plain(says)


@cache
def contract_sentences() -> frozenset[Sentence]:
    """All that the contract says."""
    return frozenset((each.element, each.text) for each in contract_statements())


def sentences_that_bind_clients() -> Iterator[Sentence]:
    """Every MUST and SHOULD that names a client, follows closely on what does, or has no other subject than one."""
    statements = contract_statements()
    for index, each in enumerate(statements):
        near = (other for other in statements[max(0, index - _BEFORE) : index + 1] if other.element == each.element)
        names_client = any(_CLIENT.search(other.text) for other in near)
        if _BINDS.search(each.text) and (names_client or any(words in each.text for words in _PASSIVE)):
            yield each.element, each.text


def bound() -> set[Sentence]:
    """Those of them that do bind clients."""
    return {(element, says) for element, says in sentences_that_bind_clients() if says not in NOT_OURS}

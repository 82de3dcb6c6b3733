"""The statements of the contract: what its comments say, sentence by sentence, each with the element that it is about.

A sentence may go over several lines; an item of a list, a row of a table and a line of a drawing count as one
statement each. What only gives form is none: headings, `Errors:`, the head of a table, and the lines that a reason of
the catalogue ends with (support.proto_docs reads those).

`normative` are the statements that the conformance suites have to prove; see support.citations for what is missing.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Literal

from google.protobuf.descriptor_pb2 import FileDescriptorProto

from support.proto_docs import Contract, load_contract

Form = Literal["sentence", "item", "row", "line"]

PACKAGE = "turnwire.v1"

PROMISES = ("Durable", "Ordered", "Unique", "Gapless", "Terminal", "Resumable", "Bounded")

# The path of `syntax` in SourceCodeInfo; the comment before it is the head of the file.
_SYNTAX = (12,)

_CODE = re.compile(r"`[^`]*`")
_END = re.compile(r"[.?!]\)?(?=\s+[A-Z`$(0-9])")
_ABBREVIATION = re.compile(r"\b(?:e\.g|i\.e|etc|vs|cf)\.$")
_ITEM = re.compile(r"( *)- +(.*)")
_FORMAL = re.compile(r"(?:Errors:|#+ .*)\Z")
_OF_A_REASON = re.compile(r"\n *Code: [A-Z_]+\. .*\Z", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement: the kind and the full name of the element whose comment it is in, and its text on one line.

    The element of the head of a file is the path of the file. `form` is how it stands in the comment.
    """

    kind: str
    element: str
    form: Form
    text: str

    def __str__(self) -> str:
        """As lists and complaints name it."""
        return f"{self.element}: {self.text}"

    def begins_with(self, says: str) -> bool:
        """Whether it begins with these words. They MAY stop anywhere, also within a word."""
        return self.text.startswith(plain(says))


def plain(says: str) -> str:
    """Return words as a statement has them: single spaces, no mark of an item, no frame of a row."""
    return " ".join(says.split()).removeprefix("- ").strip("| ").strip()


@cache
def contract_statements() -> Sequence[Statement]:
    """Return every statement of our contract, in its order."""
    return tuple(statements_of(load_contract()))


def statements_of(contract: Contract, package: str = PACKAGE) -> Iterator[Statement]:
    """Yield every statement of the files of one package."""
    for file in contract.files:
        if file.package == package:
            yield from _statements("file", file.name, _head(file))
    for element in contract.elements():
        if element.name.startswith(f"{package}."):
            yield from _statements(element.kind, element.name, element.comment)


def _head(file: FileDescriptorProto) -> str:
    heads = (each.leading_comments for each in file.source_code_info.location if tuple(each.path) == _SYNTAX)
    return next(heads, "")


def _statements(kind: str, element: str, comment: str) -> Iterator[Statement]:
    for form, text in _pieces(_OF_A_REASON.sub("", comment) if kind == "value" else comment):
        yield Statement(kind, element, form, text)


def _pieces(comment: str) -> Iterator[tuple[Form, str]]:
    """Yield what a comment says, piece by piece, each with its form."""
    for block in _blocks(comment):
        form, texts = _form(block)
        for text in texts:
            yield form, text


def _form(block: Sequence[str]) -> tuple[Form, list[str]]:
    """Return the form of a block, and what it says."""
    if block[0].lstrip().startswith("|"):
        return "row", [plain(row) for row in block[2:]]
    if _ITEM.match(block[0]):
        return "item", [plain(" ".join(block))]
    if block[0].startswith("  "):
        return "line", _lines(block)
    return "sentence", [] if _FORMAL.match(" ".join(block)) else sentences(" ".join(block))


def _blocks(comment: str) -> Iterator[list[str]]:
    """Yield the paragraphs, items, tables and drawings of a comment, as lines without the space after `//`."""
    block: list[str] = []
    for line in (each.removeprefix(" ").rstrip() for each in (*comment.splitlines(), "")):
        if block and (not line or _begins_anew(block, line)):
            yield block
            block = []
        if line:
            block.append(line)


def _lines(block: Sequence[str]) -> list[str]:
    """Return the lines of a drawing; one that is indented deeper than the first goes on with the one before it."""
    lines: list[str] = []
    for line in block:
        text = " ".join(line.split())
        if line[: _indent(block[0]) + 1].isspace():
            lines[-1] += f" {text}"
        else:
            lines.append(text)
    return lines


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _begins_anew(block: Sequence[str], line: str) -> bool:
    """Whether a line is no part of the block before it: another item, a heading, or text after what was indented."""
    if _ITEM.match(line) or _FORMAL.match(line) or _FORMAL.match(block[0]):
        return True
    return block[0].startswith("  ") != line.startswith("  ") and not block[0].startswith("|")


def sentences(text: str) -> list[str]:
    """Split a paragraph into its sentences. One begins after the stop of another, with a capital, a digit or code."""
    masked = _CODE.sub(lambda code: f"`{'x' * (len(code[0]) - 2)}`", text)
    ends = [found.end() for found in _END.finditer(masked) if not _ABBREVIATION.search(masked[: found.end()])]
    return [" ".join(text[start:end].split()) for start, end in pairwise((0, *ends, len(text)))]


@cache
def normative() -> Sequence[Statement]:
    """Return the statements of our contract that a suite has to prove, in its order."""
    return tuple(normative_of(contract_statements()))


def normative_of(statements: Sequence[Statement], package: str = PACKAGE) -> Iterator[Statement]:
    """Yield what has to be proved: what says MUST, the promises, all of the rpcs, each reason's first sentence."""
    reasons: set[str] = set()
    for each in statements:
        is_reason = each.element.startswith(f"{package}.ErrorReason.ERROR_REASON_") and each.element not in reasons
        is_sent = not each.element.endswith("_UNSPECIFIED")
        is_promise = each.form == "item" and each.text.partition(":")[0] in PROMISES
        if is_reason:
            reasons.add(each.element)
        if "MUST" in each.text or is_promise or each.kind == "rpc" or (is_reason and is_sent):
            yield each

"""Sections: what a model says to a middleware in the middle of its text.

    <turnwire:NAME key="value" key='value' key=value>any text</turnwire:NAME>
    <turnwire:NAME key="value"/>

It is an opening tag with attributes, text, and the closing tag; tags are read as they are written, in lower case. The
opening tag ends at its first `>`, so no value can contain one, and it has at most TAG_LENGTH_MAX characters. What in it
is not an attribute is ignored, and text that only looks like a tag is text. Sections of one name do not nest: one that
begins inside another ends that one, unclosed. The end of the part ends a section as well. How the text was split over
deltas makes no difference, and the text itself is not changed: who reads sections only listens.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum

from turnwire_server.engines.base import EngineChunk, PartDelta, PartEnd, PartKind, PartStart

# What an opening tag may have in characters. What might still become one is held back from the sections until then.
TAG_LENGTH_MAX = 1024

# What is kept of the text of a section, in characters; the rest of it is passed over.
TEXT_LENGTH_MAX = 32 * 1024

# How many parts of one engine call are read at a time; the sections of further ones are not seen.
PARTS_MAX = 64

_ATTRIBUTE = re.compile(r"""([\w.-]+)\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s"'/]+))""")


class SectionState(Enum):
    """Where a section is at."""

    OPEN = "open"
    CLOSED = "closed"  # by its closing tag
    BROKEN = "broken"  # it ended without one


@dataclass(slots=True, eq=False)
class Section:
    """One section as far as it was said. `length` counts the characters of what is kept of its text."""

    attributes: Mapping[str, str]
    state: SectionState = SectionState.OPEN
    length: int = 0
    _pieces: list[str] = field(default_factory=list[str])

    @property
    def text(self) -> str:
        """Return its text, without the space around it."""
        return "".join(self._pieces).strip()

    def say(self, text: str) -> None:
        """Take a piece of its text, as far as there is room."""
        if kept := text[: TEXT_LENGTH_MAX - self.length]:
            self._pieces.append(kept)
            self.length += len(kept)


class SectionReader:
    """Reads the sections of one name from one text that comes in pieces."""

    def __init__(self, name: str) -> None:
        self._closing = f"</turnwire:{name}>"
        self._opening = f"<turnwire:{name}"
        self._mark = re.compile(rf"({re.escape(self._closing)})|{re.escape(self._opening)}(?=[\s/>])([^<>]*)>")
        self._pending = ""
        self._section: Section | None = None

    def take(self, piece: str) -> Iterator[Section]:
        """Take a piece; yield each section that began, went on or ended in it, in order, as it is after the piece."""
        text = self._pending + piece
        begin = 0
        for mark in self._mark.finditer(text):
            if mark.end() - mark.start() > TAG_LENGTH_MAX:
                continue  # it is text
            self._say(text[begin : mark.start()])
            begin = mark.end()
            if mark[1] is None:
                yield from self._end(SectionState.BROKEN)
                self._section = Section(_attributes(mark[2]))
                if mark[2].endswith("/"):
                    yield from self._end(SectionState.CLOSED)
            else:
                yield from self._end(SectionState.CLOSED)
        hold = text.rfind("<", begin)
        if hold < 0 or not self._may_become_mark(text[hold:]):
            hold = len(text)
        self._say(text[begin:hold])
        self._pending = text[hold:]
        if self._section:
            yield self._section

    def end(self) -> Iterator[Section]:
        """End the text; yield the section that is open, if one is."""
        self._say(self._pending)
        self._pending = ""
        yield from self._end(SectionState.BROKEN)

    def _say(self, text: str) -> None:
        if self._section:
            self._section.say(text)

    def _end(self, state: SectionState) -> Iterator[Section]:
        if self._section:
            self._section.state = state
            yield self._section
            self._section = None

    def _may_become_mark(self, text: str) -> bool:
        if self._closing.startswith(text) or self._opening.startswith(text):
            return True
        rest = text.removeprefix(self._opening)
        is_tag = rest != text and (rest[0].isspace() or rest[0] == "/")
        return is_tag and len(text) < TAG_LENGTH_MAX and ">" not in rest


class CallReader:
    """Reads the sections of one name from all parts of some kinds of one engine call; parts may interleave."""

    def __init__(self, name: str, kinds: Iterable[PartKind]) -> None:
        self._name = name
        self._kinds = frozenset(kinds)
        self._readers: dict[int, SectionReader] = {}

    def take(self, chunk: EngineChunk) -> Iterator[Section]:
        """Take a chunk; yield each section that began, went on or ended in it, in order."""
        match chunk:
            case PartStart(part, kind):
                if kind in self._kinds and len(self._readers) < PARTS_MAX:
                    self._readers.setdefault(part, SectionReader(self._name))
            case PartDelta(part, delta):
                if reader := self._readers.get(part):
                    yield from reader.take(delta)
            case PartEnd(part):
                if reader := self._readers.pop(part, None):
                    yield from reader.end()

    def end(self) -> Iterator[Section]:
        """End the parts that were not ended; yield the sections that are open in them."""
        while self._readers:
            yield from self._readers.pop(next(iter(self._readers))).end()


def _attributes(text: str) -> Mapping[str, str]:
    """Return the attributes of an opening tag; the first of a name counts."""
    found: dict[str, str] = {}
    for name, *values in _ATTRIBUTE.findall(text):
        found.setdefault(name, "".join(values))
    return found

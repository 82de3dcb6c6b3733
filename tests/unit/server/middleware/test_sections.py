"""Sections in text that comes in pieces."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from turnwire_server.engines.base import EngineChunk, PartDelta, PartEnd, PartKind, PartStart
from turnwire_server.middleware.sections import (
    PARTS_MAX,
    TAG_LENGTH_MAX,
    TEXT_LENGTH_MAX,
    CallReader,
    Section,
    SectionReader,
    SectionState,
)

CLOSED, BROKEN = SectionState.CLOSED, SectionState.BROKEN
Read = list[tuple[dict[str, str], str, SectionState]]

LONG = " " * TAG_LENGTH_MAX
FRAGMENTS = (
    "<turnwire:mode",
    "<turnwire:mode>",
    '<turnwire:mode name="a b">',
    "<turnwire:mode name='x'/>",
    "<turnwire:mode name=x y>",
    "<turnwire:modes>",
    "<turnwire:other>",
    "</turnwire:mode>",
    "</turnwire:mode",
    f"<turnwire:mode {LONG}>",
    f"<turnwire:mode {LONG[: TAG_LENGTH_MAX - len('<turnwire:mode >')]}>",  # just as long as a tag may be
    f"<turnwire:mode {LONG[: TAG_LENGTH_MAX + 1 - len('<turnwire:mode >')]}>",
    "<",
    ">",
    "/",
    '"',
    " ",
    "\n",
    "grüße 👋",
    "plain",
)


def read(pieces: list[str]) -> Read:
    """Return the sections in the order in which they begin, as they are at the end."""
    reader = SectionReader("mode")
    found: dict[Section, None] = {}
    for piece in pieces:
        found |= dict.fromkeys(reader.take(piece))
    found |= dict.fromkeys(reader.end())
    return [(dict(section.attributes), section.text, section.state) for section in found]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nothing here", []),
        ('a <turnwire:mode name="x">why</turnwire:mode> b', [({"name": "x"}, "why", CLOSED)]),
        (
            "<turnwire:mode\n name = 'x'\n more=y >\n why \n</turnwire:mode>",
            [({"name": "x", "more": "y"}, "why", CLOSED)],
        ),
        ('<turnwire:mode name="x"/>tail', [({"name": "x"}, "", CLOSED)]),
        ("<turnwire:mode/>", [({}, "", CLOSED)]),
        (f"<turnwire:mode {LONG[:-15]}/>", []),
        ("<turnwire:mode>a < b > c</turnwire:mode>", [({}, "a < b > c", CLOSED)]),
        ("<turnwire:mode a=1 a=2 ?!>", [({"a": "1"}, "", BROKEN)]),
        (
            "<turnwire:mode n=1>a<turnwire:mode n=2>b</turnwire:mode>",
            [({"n": "1"}, "a", BROKEN), ({"n": "2"}, "b", CLOSED)],
        ),
        ("<turnwire:mode>open </turnwire:mo", [({}, "open </turnwire:mo", BROKEN)]),
        ("</turnwire:mode>", []),
        ("<turnwire:modes>x</turnwire:modes>", []),
        ("<Turnwire:Mode>x</Turnwire:Mode>", []),
        ("<turnwire:mode <turnwire:mode n=1>x</turnwire:mode>", [({"n": "1"}, "x", CLOSED)]),
        (f"<turnwire:mode {LONG}>x</turnwire:mode>", []),
        ("<turnwire:mode", []),
    ],
)
def test_what_is_a_section(text: str, expected: Read) -> None:
    assert read([text]) == expected
    assert read(list(text)) == expected


@given(st.lists(st.sampled_from(FRAGMENTS), max_size=12).map("".join), st.data())
@example("<turnwire:mode>x</turnwire:mode>", None)
def test_any_split_reads_the_same(text: str, data: st.DataObject | None) -> None:
    whole = read([text])
    assert read(list(text)) == whole
    if data is not None:
        cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
        assert read([text[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]) == whole


def test_text_of_a_section_is_bounded() -> None:
    text = "x" * (TEXT_LENGTH_MAX + 10)
    [(_, kept, state)] = read(["<turnwire:mode>", text, text, "</turnwire:mode>"])
    assert (kept, state) == (text[:TEXT_LENGTH_MAX], CLOSED)


def test_section_is_seen_as_it_grows() -> None:
    reader = SectionReader("mode")
    assert [section.text for section in reader.take("<turnwire:mode>a")] == ["a"]
    assert [section.text for section in reader.take("b</turnw")] == ["ab"]
    assert [(section.text, section.state) for section in reader.take("ire:mode>c")] == [("ab", CLOSED)]
    assert list(reader.take("d")) == []


def chunks_of(reader: CallReader, *chunks: EngineChunk) -> list[tuple[str, SectionState]]:
    return [(section.text, section.state) for chunk in chunks for section in reader.take(chunk)]


def test_parts_interleave_and_others_are_not_read() -> None:
    reader = CallReader("mode", {PartKind.TEXT})
    found = chunks_of(
        reader,
        PartStart(0, PartKind.TEXT),
        PartStart(1, PartKind.TEXT),
        PartStart(2, PartKind.TOOL_CALL),
        PartDelta(0, "<turnwire:mo"),
        PartDelta(1, "<turnwire:mode>one"),
        PartDelta(2, "<turnwire:mode>args</turnwire:mode>"),
        PartDelta(0, "de>zero</turnwire:mode>"),
        PartEnd(1),
        PartDelta(7, "<turnwire:mode/>"),
    )
    assert found == [("one", SectionState.OPEN), ("zero", CLOSED), ("one", BROKEN)]


def test_parts_that_were_not_ended_end_with_the_call() -> None:
    reader = CallReader("mode", {PartKind.THINKING})
    chunks_of(reader, PartStart(0, PartKind.THINKING), PartDelta(0, "<turnwire:mode>cut"))
    assert [(section.text, section.state) for section in reader.end()] == [("cut", BROKEN)]
    assert list(reader.end()) == []


def test_only_so_many_parts_are_read_at_a_time() -> None:
    reader = CallReader("mode", {PartKind.TEXT})
    chunks_of(reader, *(PartStart(number, PartKind.TEXT) for number in range(PARTS_MAX + 1)))
    assert chunks_of(reader, PartDelta(PARTS_MAX, "<turnwire:mode/>")) == []
    assert chunks_of(reader, PartDelta(0, "<turnwire:mode/>")) == [("", CLOSED)]

"""What a profile is made of."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnwire_server.config.error import ConfigError
from turnwire_server.config.inheritance import LINEAGE_DEPTH_MAX, Written, WrittenProfile, lineage_of, merge
from turnwire_server.config.profile_file import ProfileEntry

File = Mapping[str, Mapping[str, Any]]


def written(*files: File) -> Written:
    """The profiles of files that are called f1, f2, ..."""
    found: dict[str, list[WrittenProfile]] = {}
    for number, file in enumerate(files, 1):
        for name, values in file.items():
            entry = ProfileEntry.model_validate(values)
            found.setdefault(name, []).append(WrittenProfile(name, f"f{number}", values, entry))
    return found


def lineage(name: str, *files: File) -> list[str]:
    return [str(each) for each in lineage_of(name, written(*files))]


def test_bases_come_first_in_the_order_in_which_they_are_named() -> None:
    file = {"a": {}, "b": {"extends": "a"}, "c": {}, "d": {"extends": ["b", "c"]}}
    assert lineage("d", file) == ["a (f1)", "b (f1)", "c (f1)", "d (f1)"]
    assert lineage("a", file) == ["a (f1)"]


def test_a_base_that_is_reached_twice_counts_once() -> None:
    """Else what `left` changes of the root would be undone by what `right` has from it."""
    file = {
        "root": {"model": "root", "engine": "scripted"},
        "left": {"extends": "root", "model": "left"},
        "right": {"extends": "root", "description": "right"},
        "leaf": {"extends": ["left", "right"]},
    }
    found = lineage_of("leaf", written(file))
    assert [each.name for each in found] == ["root", "left", "right", "leaf"]
    assert merge(found) == {
        "model": "left",
        "engine": "scripted",
        "description": "right",
        "extends": ["left", "right"],
    }


def test_a_name_means_the_profile_that_is_in_effect() -> None:
    first = {"base": {"model": "one"}, "leaf": {"extends": "base"}}
    second = {"base": {"model": "two"}}
    assert lineage("leaf", first) == ["base (f1)", "leaf (f1)"]
    assert lineage("leaf", first, second) == ["base (f2)", "leaf (f1)"]


def test_its_own_name_means_the_profile_that_it_replaces() -> None:
    first = {"base": {"model": "one"}, "leaf": {"extends": "base"}}
    second = {"base": {"extends": "base", "description": "two"}}
    third = {"base": {"extends": "base", "model": "three"}}
    assert lineage("leaf", first, second, third) == ["base (f1)", "base (f2)", "base (f3)", "leaf (f1)"]


def test_one_that_does_not_extend_what_it_replaces_has_nothing_of_it() -> None:
    assert lineage("a", {"a": {"model": "one"}}, {"a": {}}, {"a": {"extends": "a"}}) == ["a (f2)", "a (f3)"]


def test_what_a_profile_does_not_inherit() -> None:
    base = {"abstract": True, "version": 7, "description": "for all", "engine": "scripted"}
    found = lineage_of("leaf", written({"base": base, "leaf": {"extends": "base", "model": "m"}}))
    assert merge(found) == {"extends": "base", "model": "m", "description": "for all", "engine": "scripted"}


def test_one_that_extends_the_one_it_replaces_stays_abstract_unless_it_says_otherwise() -> None:
    first = {"base": {"abstract": True, "version": 7, "engine": "scripted"}}
    stays = merge(lineage_of("base", written(first, {"base": {"extends": "base"}})))
    assert stays == {"abstract": True, "engine": "scripted", "extends": "base"}
    ends = merge(lineage_of("base", written(first, {"base": {"extends": "base", "abstract": False}})))
    assert ends["abstract"] is False


@pytest.mark.parametrize(
    ("files", "says"),
    [
        (
            [{"a": {"extends": "b"}, "b": {"extends": ["x", "c"]}, "c": {"extends": "a"}, "x": {}}],
            "a (f1) -> b (f1) -> c (f1) -> a (f1)",
        ),
        # Which b is meant, the one that is in effect or the one that a was written for? Nobody can say.
        ([{"b": {}, "a": {"extends": "b"}}, {"b": {"extends": "a"}}], "a (f1) -> b (f2) -> a (f1)"),
        ([{"a": {}, "b": {"extends": "a"}}, {"a": {"extends": ["a", "b"]}}], "a (f2) -> b (f1) -> a (f2)"),
        ([{"a": {"extends": "a"}}], "a (f1) extends its own name, but replaces no profile of an earlier file"),
        ([{"a": {"extends": "a"}}, {"a": {"extends": "a"}}], "a (f1) extends its own name"),
        ([{"a": {"extends": "nope"}, "c": {}, "b": {}}], "a (f1) extends nope, which no file has; there are: b, c"),
        ([{"a": {"extends": "nope"}}], "there are: no others"),
    ],
)
def test_what_leads_nowhere_is_refused(files: Sequence[File], says: str) -> None:
    with pytest.raises(ConfigError) as refused:
        lineage_of("a", written(*files))
    assert says in str(refused.value)
    assert "`extends`" in str(refused.value)


def test_a_circle_beside_the_way_is_named_without_the_way() -> None:
    file = {"a": {"extends": "b"}, "b": {"extends": "c"}, "c": {"extends": "b"}}
    with pytest.raises(ConfigError, match=r"circle: b \(f1\) -> c \(f1\) -> b \(f1\);"):
        lineage_of("a", written(file))


def test_a_chain_has_an_end() -> None:
    chain = {f"p{number}": {"extends": f"p{number + 1}"} for number in range(1000)}
    last = f"p{1000 - LINEAGE_DEPTH_MAX}"
    assert len(lineage(last, {**chain, "p1000": {}})) == LINEAGE_DEPTH_MAX + 1
    with pytest.raises(ConfigError, match=f"p0 .* more than {LINEAGE_DEPTH_MAX} deep"):
        lineage("p0", {**chain, "p1000": {}})


NAMES = st.sampled_from("abcde")
FILES = st.lists(
    st.dictionaries(NAMES, st.builds(lambda names: {"extends": names}, st.lists(NAMES, max_size=3))), max_size=3
)


@given(files=FILES)
def test_any_files_are_refused_or_have_every_base_before_what_extends_it(files: list[File]) -> None:
    profiles = written(*files)
    for name in profiles:
        try:
            found = lineage_of(name, profiles)
        except ConfigError:
            continue
        assert found[-1] is profiles[name][-1]
        assert len(set(found)) == len(found)
        for position, each in enumerate(found):
            for base in each.entry.extends:
                meant = [one for one in profiles[base] if base != name or one is not each]
                assert any(one in found[:position] for one in meant)

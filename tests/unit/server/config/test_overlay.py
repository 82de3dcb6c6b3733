"""One map laid over another: the rules of RFC 7396."""

from hypothesis import given
from hypothesis import strategies as st

from turnwire_server.config.overlay import overlay

VALUES = st.recursive(
    st.integers() | st.booleans() | st.text(max_size=3) | st.lists(st.integers(), max_size=2),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)
MAPS = st.dictionaries(st.sampled_from("abc"), VALUES, max_size=3)


def test_maps_recursively_lists_and_values_as_a_whole() -> None:
    below = {"options": {"url": "one", "depth": {"x": 1, "y": 2}}, "list": [1, 2], "kept": True}
    above = {"options": {"depth": {"y": 3}}, "list": [3], "new": {"z": 0}}
    assert overlay(below, above) == {
        "options": {"url": "one", "depth": {"x": 1, "y": 3}},
        "list": [3],
        "kept": True,
        "new": {"z": 0},
    }


def test_null_takes_away_also_where_nothing_is() -> None:
    assert overlay({"a": 1, "b": {"c": 1, "d": 2}}, {"a": None, "b": {"c": None}, "e": {"f": None}}) == {
        "b": {"d": 2},
        "e": {},
    }


def test_a_map_and_a_value_replace_each_other() -> None:
    assert overlay({"a": {"b": 1}, "c": 1}, {"a": 2, "c": {"d": 3}}) == {"a": 2, "c": {"d": 3}}


@given(below=MAPS, above=MAPS)
def test_what_is_above_is_there_and_nothing_is_changed(below: dict[str, object], above: dict[str, object]) -> None:
    before = repr((below, above))
    merged = overlay(below, above)
    assert overlay(merged, above) == merged
    assert merged.keys() == below.keys() | above.keys()
    assert all(merged[key] == below[key] for key in below.keys() - above.keys())
    assert repr((below, above)) == before

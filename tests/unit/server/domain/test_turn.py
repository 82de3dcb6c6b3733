from turnwire_server.domain.turn import PER_TURN_DATA, inherit_data


def test_a_child_inherits_and_overrides() -> None:
    assert inherit_data({"a.b@v1": "1", "a.c@v1": "2"}, {"a.c@v1": "3", "a.d@v1": "4"}) == {
        "a.b@v1": "1",
        "a.c@v1": "3",
        "a.d@v1": "4",
    }


def test_a_child_does_not_inherit_what_was_for_one_turn() -> None:
    parent = dict.fromkeys(PER_TURN_DATA, "1") | {"a.b@v1": "1"}
    assert inherit_data(parent, {}) == {"a.b@v1": "1"}


def test_a_child_may_have_its_own_for_one_turn() -> None:
    own = dict.fromkeys(PER_TURN_DATA, "2")
    assert inherit_data(dict.fromkeys(PER_TURN_DATA, "1"), own) == own

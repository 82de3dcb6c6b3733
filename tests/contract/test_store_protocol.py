"""Every store does what the model does, whatever happens to its callers; and a store that leaves out a rule does not.

This is the slice that runs each time; store_protocol runs as long as it is told to.
"""

import pytest

from contract.store_faults import NoKeyGate, NoLeaseCheck, NoPosition
from contract.store_protocol import STORES, Search, Spoil

# What fits in the time that a test may take.
_EXAMPLES = 300

# A control that takes longer to find than this says that the examples have become too tame.
_CONTROL_EXAMPLES_MAX = 200


@pytest.mark.parametrize("store", STORES)
def test_a_store_keeps_the_protocol(store: str) -> None:
    search = Search(store)
    assert not search.run(_EXAMPLES, seed_number=0), search.report()


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("spoil", [NoLeaseCheck, NoPosition, NoKeyGate])
def test_a_store_that_leaves_out_a_rule_is_found(store: str, spoil: Spoil) -> None:
    search = Search(store, spoil)
    assert search.run(_CONTROL_EXAMPLES_MAX, seed_number=0, shrinks=False)
    assert isinstance(search.error, AssertionError)
    print(f"{search.examples} examples")


@pytest.mark.parametrize("store", STORES)
def test_owners_that_do_not_reconcile_are_found(store: str) -> None:
    search = Search(store, reconciles=False)
    assert search.run(_CONTROL_EXAMPLES_MAX, seed_number=0, shrinks=False)
    assert "NothingStuck" in str(search.error)
    print(f"{search.examples} examples")

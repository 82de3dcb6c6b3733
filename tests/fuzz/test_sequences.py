"""A slice of the search for sequences of calls that break the contract, and proof that it can find them.

`make sequences` is the long one.
"""

import re
from pathlib import Path

import pytest

from fuzz.defects import SEQUENCE_DEFECTS
from fuzz.sequences import SequenceSearch
from fuzz.stage import Stage

# What fits in the time that a test may take; restarts make those on a file the slower ones.
_EXAMPLES = {"sqlite": 4, "memory": 15}
_SEED = 1

# A control that takes longer to find than this says that the sequences have become too tame.
_CONTROL_EXAMPLES_MAX = 40

# What is stuck because of a defect is stuck for good: there is no need to wait for it as long as one has to otherwise.
# Only for that defect: with the others a server that is merely slow would be found, and not they.
_CONTROL_PATIENCE_SECONDS = 3.0

# What is said of each defect when it is found: a pattern, which nothing else that may be wrong matches.
_SAID = {
    "no_key": r"^Idempotent: a key |^refused with nothing, not .*IDEMPOTENCY_KEY_REUSED",
    "one_attempt": r"^NothingStuck: a \w+ is FAILED in attempt 0, not RUNNING after [12] losses",
    "no_rollback": r"^turns are built on ",
    "last_in_first_out": r"^place \d, not \d|^NothingStuck: a \w+ is [A-Z_]+ in attempt 0, not QUEUED after 0 losses",
    "lost_event": r"^Gapless: ",
    "rewritten_history": r"^HistoryImmutable: ",
    "stuck": r"^NothingStuck: a \w+ is RUNNING in attempt 0, not CANCELLED|^CancelEnds: RUNNING long after",
}

# Each restart is the start of a process, which takes its time on a busy machine.
_SECONDS_MAX = 300


@pytest.mark.timeout(_SECONDS_MAX)
@pytest.mark.parametrize("store", _EXAMPLES)
def test_a_server_keeps_the_contract_whatever_the_order_of_calls(quick_path: Path, store: str) -> None:
    with Stage(quick_path, store) as stage:
        search = SequenceSearch(stage)
        assert not search.run(_EXAMPLES[store], _SEED), search.report()
        assert search.account.steps > 10 * _EXAMPLES[store]


@pytest.mark.timeout(_SECONDS_MAX)
@pytest.mark.parametrize("defect", SEQUENCE_DEFECTS)
def test_a_defect_is_found(quick_path: Path, defect: str) -> None:
    store = "sqlite" if defect == "one_attempt" else "memory"  # an attempt is lost with its process
    with Stage(quick_path, store, ("fuzz.defects", defect)) as stage:
        if defect == "stuck":
            stage.patience_seconds = _CONTROL_PATIENCE_SECONDS
        search = SequenceSearch(stage)
        assert search.run(_CONTROL_EXAMPLES_MAX, _SEED, shrinks=False)
        print(f"{search.examples} sequences: {search.account.error}")
        assert re.search(_SAID[defect], str(search.account.error))


@pytest.mark.parametrize("state", ["QUEUED", "RUNNING"])
def test_a_server_that_is_slow_to_recover_is_taken_for_no_defect(state: str) -> None:
    slow = f"NothingStuck: a hang is {state} in attempt 0, not RUNNING after 1 losses"
    assert not [defect for defect, said in _SAID.items() if re.search(said, slow)]

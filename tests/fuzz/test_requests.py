"""A slice of the search for requests that are answered wrongly, and proof that it can find them.

`make fuzz` is the long one.
"""

import random
import re
from pathlib import Path

import pytest

from fuzz.caller import Attempt
from fuzz.corpus import CASES
from fuzz.defects import RAW_DEFECTS, REQUEST_DEFECTS, SLOW_SECONDS
from fuzz.draws import Draws
from fuzz.raw_http2 import make_call
from fuzz.rpcs import rpcs
from fuzz.search import Search
from fuzz.target import Target

# What fits in the time that a test may take; a seed of its own for each run of the slice would make it a lottery.
_EXAMPLES = 600
_RAW_EXAMPLES = 60
_SEED = 1

# A control that takes longer to find than this says that the requests have become too tame.
_CONTROL_EXAMPLES_MAX = 500

# What is said of each defect when it is found: a pattern.
_SAID = {
    "crash": "INTERNAL|rpc crashed",
    "no_details": "no ErrorInfo",
    "other_metadata": "INVALID_PAGE_TOKEN",
    "unlisted_reason": "does not say that it may fail with INFERENCE_NOT_FOUND",
    "python_words": "words of Python",
    "no_rules": "rules",
    "quiet_failure": "the server logged",
    "slow": "GetProfile: no answer",
    "greedy": "MiB",
    "mortal": "UNAVAILABLE",
}


def test_every_request_is_answered_as_the_contract_says(quick_path: Path) -> None:
    with Target(quick_path) as target:
        search = Search(target)
        assert not search.run(_SEED, _EXAMPLES), search.report()
        unreached = [name for name in rpcs() if not search.answers[f"{name} OK"]]
        assert not unreached, f"never accepted: {unreached}"


def test_what_no_client_sends_is_answered_or_hung_up_on(quick_path: Path) -> None:
    with Target(quick_path) as target:
        search = Search(target)
        assert not search.run_raw(_SEED, _RAW_EXAMPLES), search.report()


def test_a_server_that_listens_once_is_found(quick_path: Path) -> None:
    [defect] = RAW_DEFECTS
    with Target(quick_path, module=("fuzz.defects", defect)) as target:
        target.patience = (8.0,)  # nobody will listen, however long one waits
        search = Search(target)
        assert search.run_raw(_SEED, _RAW_EXAMPLES)
        assert "does not tell its health" in str(search.error)
        assert search.sent.hex()[:1000] in search.report()
        again = re.fullmatch(r".* --seed 1 --examples 0 --raw (\d+) --raw-first (\d+)", search.again)
        assert again, search.again
        count, first = int(again[1]), int(again[2])
        calls = [make_call(Draws(chance=random.Random(f"{_SEED}/raw/{first + n}"))) for n in range(count)]
        assert not calls[0].has_text_path
        assert calls[-1].sent == search.sent


def test_what_was_once_answered_wrongly(quick_path: Path) -> None:
    with Target(quick_path) as target:
        for case in CASES:
            target.check_settled(Attempt(rpcs()[case.rpc], bytes.fromhex(case.request)))


@pytest.mark.parametrize("defect", REQUEST_DEFECTS)
def test_a_defect_is_found(quick_path: Path, defect: str) -> None:
    with Target(quick_path, module=("fuzz.defects", defect)) as target:
        target.memory_mebibytes_max = 400
        if defect == "slow":  # the second time it is served twice, one after the other
            target.patience = (0.3 * SLOW_SECONDS, 1.5 * SLOW_SECONDS)
        search = Search(target, shrinks=False)
        assert search.run(_SEED, _CONTROL_EXAMPLES_MAX)
        assert re.search(_SAID[defect], str(search.error))
        print(f"{search.examples} requests")

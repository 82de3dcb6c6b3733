"""Makes pytest explain the asserts of the store suite, whose modules are no test modules themselves."""

import pytest

pytest.register_assert_rewrite(
    "contract.store_again",
    "contract.store_calls",
    "contract.store_client_rules",
    "contract.store_compaction",
    "contract.store_deletions",
    "contract.store_driver",
    "contract.store_faults",
    "contract.store_fencing",
    "contract.store_hand_back",
    "contract.store_harness",
    "contract.store_leases",
    "contract.store_line",
    "contract.store_log",
    "contract.store_look",
    "contract.store_model",
    "contract.store_model_clients",
    "contract.store_model_state",
    "contract.store_owner_rules",
    "contract.store_owners",
    "contract.store_protocol",
    "contract.store_sessions",
    "contract.store_starts",
    "contract.store_steps",
    "contract.store_sweep",
    "contract.store_turns",
    "contract.store_waiting",
    "contract.store_world",
)

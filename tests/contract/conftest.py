"""Makes pytest explain the asserts of the store suite, whose modules are no test modules themselves."""

import pytest

pytest.register_assert_rewrite(
    "contract.store_harness",
    "contract.store_leases",
    "contract.store_line",
    "contract.store_log",
    "contract.store_sessions",
    "contract.store_starts",
    "contract.store_turns",
)

"""The adapter of the Python SDK with one defect planted: what the suite has to find.

turnwire client-conformance -- python tests/conformance/adapters/planted.py mints_a_new_key_for_each_try
"""

import asyncio
import sys

import planted_events
import planted_requests
import planted_streams
import python_sdk
from planting import PLANTS

# Imported for the defects that they register.
DEFECTS = (planted_requests, planted_streams, planted_events)

if __name__ == "__main__":
    if sys.argv[1] == "--list":
        print("\n".join(PLANTS))
    else:
        PLANTS[sys.argv[1]]()
        asyncio.run(python_sdk.main())

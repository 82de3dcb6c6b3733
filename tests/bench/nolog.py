"""Our server without a log: the same producer, the same fan-out, and in between nothing but stamping and publishing.

    python -m bench.nolog ARGUMENTS OF turnwire_server

What durability costs is the difference to it. Everything but `append` is the memory store's; what was published stays
referenced, so that a watcher that falls behind the ring still gets every event.
"""

import sys
from collections.abc import Sequence

from turnwire_server import __main__ as server
from turnwire_server.stores import memory_leases
from turnwire_server.stores.base import Commit
from turnwire_server.stores.lease import Fenced, Lease
from turnwire_server.stores.memory_state import State
from turnwire_server.stores.sequence import join_chunks, stamp


def append(state: State, lease: Lease, position: int, events: Sequence[bytes]) -> None:
    """Give events their sequences, and publish them."""
    held = state.inferences.get((lease.principal, lease.inference_id))
    if held is None or held.lease != lease.token or held.position != position:
        raise Fenced
    session = held.session
    chunks = join_chunks([stamp(lease.inference_id, None, events, session.head)])
    session.chunks.extend(chunks)
    session.head += len(events)
    held.event_count += len(events)
    held.position += len(events)
    state.commits.append(Commit(lease.principal, session.session.session_id, tuple(chunks)))


if __name__ == "__main__":
    memory_leases.append = append
    sys.exit(server.main())

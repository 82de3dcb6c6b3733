"""The hot path of a SqliteSessionStore: events are appended under leases, for several inferences at a time."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from turnwire_server.domain.inference import InferenceState
from turnwire_server.stores.lease import Fenced, Lease
from turnwire_server.stores.sqlite_inferences import find_inference
from turnwire_server.stores.sqlite_rows import InferenceRow
from turnwire_server.stores.sqlite_transaction import Transaction

# Where events are appended that were asked for as [inference_id, lease, position, principal, count]: one row, with the
# places by the position of what was asked for, and the head of the session as it will be. Those that are not there are
# to be refused.
_SELECT_PLACES = """
    SELECT json_group_array(json_object(
        'asked', w.key, 'inference', i.key, 'session', s.key, 'principal', s.principal, 'session_id', s.session_id,
        'count', json_extract(w.value, '$[4]'), 'head_sequence', s.head_sequence + json_extract(w.value, '$[4]')
    ))
    FROM json_each(?) w CROSS JOIN inference i ON i.inference_id = json_extract(w.value, '$[0]')
        JOIN session s ON s.key = i.session
    WHERE i.state = 2 AND i.lease = json_extract(w.value, '$[1]') AND i.position = json_extract(w.value, '$[2]')
        AND s.principal = json_extract(w.value, '$[3]')"""

_ADVANCE_SESSIONS = """
    UPDATE session SET head_sequence = json_extract(w.value, '$.head_sequence') FROM json_each(?) w
    WHERE session.key = json_extract(w.value, '$.session')"""

_ADVANCE_INFERENCES = """
    UPDATE inference SET position = position + json_extract(w.value, '$.count'),
        event_count = event_count + json_extract(w.value, '$.count'),
        last_sequence = iif(json_extract(w.value, '$.count'), json_extract(w.value, '$.head_sequence'), last_sequence)
    FROM json_each(?) w
    WHERE inference.key = json_extract(w.value, '$.inference')"""


@dataclass(frozen=True, slots=True)
class Append:
    """What SessionStore.append is asked for."""

    lease: Lease
    position: int
    events: Sequence[bytes]


def append(tx: Transaction, appends: Sequence[Append]) -> list[Exception | None]:
    """Do what SessionStore says of append, for several callers; return the error of each. The hot path."""
    errors: list[Exception | None] = []
    begin, seen = 0, set[str]()
    for number, each in enumerate(appends):
        if each.lease.inference_id in seen:  # sent again while it was on its way: it is looked at after the first one
            errors += _append_group(tx, appends[begin:number])
            begin, seen = number, set[str]()
        seen.add(each.lease.inference_id)
    return errors + _append_group(tx, appends[begin:])


def _append_group(tx: Transaction, appends: Sequence[Append]) -> list[Exception | None]:
    """Append for inferences that are different ones, and so are their sessions: each has one that is RUNNING."""
    asked = [
        (each.lease.inference_id, each.lease.token, each.position, each.lease.principal, len(each.events))
        for each in appends
    ]
    [text] = tx.connection.execute(_SELECT_PLACES, (json.dumps(asked),)).fetchone()
    found: list[dict[str, Any]] = json.loads(text)
    places: dict[int, dict[str, Any]] = {place["asked"]: place for place in found}
    for asked_for, place in places.items():
        each = appends[asked_for]
        tx.record(place["session"], place, each.lease.inference_id, each.events, None)
    if places:
        tx.connection.execute(_ADVANCE_SESSIONS, (text,))
        tx.connection.execute(_ADVANCE_INFERENCES, (text,))
    return [None if number in places else _refusal(tx, each) for number, each in enumerate(appends)]


def _refusal(tx: Transaction, asked: Append) -> Fenced | None:
    """Return why events are not appended; None if they are in the log: they were sent before."""
    try:
        check_place(load_leased(tx, asked.lease), asked.position + len(asked.events))
    except Fenced as error:
        return error
    return None


def load_leased(tx: Transaction, lease: Lease) -> InferenceRow:
    """Return the inference that was last leased under a token. Errors: Fenced."""
    row = find_inference(tx.connection, lease.principal, lease.inference_id)
    if row is None or row.lease is None or row.lease != lease.token:
        raise Fenced
    return row


def check_place(row: InferenceRow, position: int) -> None:
    """Raise Fenced unless an inference runs, and its lease is at a position."""
    if row.inference.state is not InferenceState.RUNNING or row.position != position:
        raise Fenced

"""Rows of the SQLite schema to and from the nouns of the domain."""

import hashlib
import sqlite3
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from turnwire.v1 import inference_pb2 as pb
from turnwire_server.domain.inference import Inference, InferenceConfig, Overrides
from turnwire_server.domain.session import InferenceRef, PauseAction, Session, SessionOrigin, StepMode
from turnwire_server.stores.intake import decode_map
from turnwire_server.wire import inference as wire_inference

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

SELECT_SESSION = """
    SELECT s.*, d.display_name, d.profile, d.metadata, d.config, d.step_deadline, d.step_action, d.origin,
        s.log || '.' || (SELECT value FROM meta WHERE name = 'incarnation') AS log_token,
        (SELECT json_group_object(name, value) FROM label WHERE session = s.key) AS labels,
        (SELECT inference_id FROM inference WHERE session = s.key AND is_active = 1) AS active,
        (SELECT count(*) FROM inference WHERE session = s.key AND state = 1 AND is_active = 0) AS queued_count
    FROM session s JOIN description d ON d.session = s.key"""

SELECT_INFERENCE = """
    SELECT i.*, s.principal,
        CASE WHEN i.state = 1 THEN (
            SELECT count(*) FROM inference q WHERE q.session = i.session AND q.state = 1
            AND (q.is_active > i.is_active OR q.is_active = i.is_active AND q.rank <= i.rank)
        ) END AS queue_position
    FROM inference i JOIN session s ON s.key = i.session"""


@dataclass(frozen=True, slots=True)
class InferenceRow:
    """An inference as it is stored. `block_count` counts the blocks that it adds to its turn.

    `lease` is the token of its last lease, None if it was revoked or there was none.
    """

    key: int
    session: int
    principal: str
    lease: str | None
    position: int
    step: int
    holds_through: int
    was_lost: bool
    is_handed_back: bool
    event_count: int
    block_count: int
    inference: Inference


def to_micros(moment: datetime) -> int:
    """Return a moment as the schema has it."""
    return (moment - _EPOCH) // _MICROSECOND


def from_micros(micros: int) -> datetime:
    """Return a moment of the schema."""
    return _EPOCH + timedelta(microseconds=micros)


def optional_micros(moment: datetime | None) -> int | None:
    """Return a moment as the schema has it, None for none."""
    return None if moment is None else to_micros(moment)


def optional_moment(micros: int | None) -> datetime | None:
    """Return a moment of the schema, None for none."""
    return None if micros is None else from_micros(micros)


def session_from_row(row: sqlite3.Row) -> Session:
    """Return the session of a row of SELECT_SESSION."""
    active = row["active"]
    return Session(
        session_id=row["session_id"],
        create_time=from_micros(row["create_time"]),
        update_time=from_micros(row["update_time"]),
        log=row["log_token"],
        display_name=row["display_name"],
        labels=decode_map(row["labels"]),
        metadata=decode_map(row["metadata"]),
        profile=row["profile"],
        expire_time=optional_moment(row["expire_time"]),
        revision=row["revision"],
        turn_count=row["turn_count"],
        head_sequence=row["head_sequence"],
        active=InferenceRef(row["session_id"], active) if active else None,
        queued_count=row["queued_count"],
        step_mode=_step_mode_from_row(row),
        config=wire_inference.config_from_proto(pb.InferenceConfig.FromString(row["config"])),
        origin=None if row["origin"] is None else SessionOrigin(row["origin"], row["trunk_index"]),
    )


def step_mode_to_columns(step_mode: StepMode | None) -> tuple[int | None, int | None]:
    """Return what the columns step_deadline and step_action have."""
    return (step_mode.deadline // _MICROSECOND, int(step_mode.deadline_action)) if step_mode else (None, None)


def _step_mode_from_row(row: sqlite3.Row) -> StepMode | None:
    if row["step_action"] is None:
        return None
    return StepMode(row["step_deadline"] * _MICROSECOND, PauseAction(row["step_action"]))


def inference_from_row(row: sqlite3.Row) -> InferenceRow:
    """Return the inference of a row of SELECT_INFERENCE."""
    inference = replace(
        wire_inference.from_proto(pb.Inference.FromString(row["record"])),
        queue_position=row["queue_position"],
        first_sequence=row["first_sequence"],
        last_sequence=row["last_sequence"],
    )
    return InferenceRow(
        key=row["key"],
        session=row["session"],
        principal=row["principal"],
        lease=row["lease"],
        position=row["position"],
        step=row["step"],
        holds_through=row["holds_through"],
        was_lost=bool(row["was_lost"]),
        is_handed_back=bool(row["is_handed_back"]),
        event_count=row["event_count"],
        block_count=row["block_count"],
        inference=inference,
    )


def inference_to_columns(inference: Inference) -> tuple[int, bool, int | None, bool, bytes]:
    """Return what the columns state, is_active, deadline, cancel_requested and record have."""
    return (
        int(inference.state),
        inference.is_active,
        optional_micros(inference.deadline_time),
        inference.cancel_requested_time is not None,
        wire_inference.to_proto(inference).SerializeToString(),
    )


def encode_config(config: InferenceConfig) -> bytes:
    """Return the bytes of a configuration."""
    return wire_inference.config_to_proto(config).SerializeToString()


def encode_overrides(overrides: Overrides) -> bytes:
    """Return the bytes of overrides."""
    return wire_inference.overrides_to_proto(overrides).SerializeToString()


def decode_overrides(data: bytes) -> Overrides:
    """Return the overrides of bytes."""
    return wire_inference.overrides_from_proto(pb.Overrides.FromString(data))


def store_payload(connection: sqlite3.Connection, principal: str, content: bytes) -> int:
    """Return the key of a payload with this content, made now or shared."""
    digest = hashlib.sha256(content).digest()
    find = "SELECT key FROM payload WHERE principal = ? AND hash = ?"
    row = connection.execute(find, (principal, digest)).fetchone()
    if row is not None:
        return int(row["key"])
    insert = "INSERT INTO payload (principal, hash, content) VALUES (?, ?, ?)"
    cursor = connection.execute(insert, (principal, digest, content))
    return cursor.lastrowid or 0

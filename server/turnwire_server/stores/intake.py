"""What a store makes of what it is given: a session, an inference, blocks, a turn's metadata. Pure but for `mint`."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from turnwire_server.domain.errors import RevisionMismatchError, TurnNotClosedError, TurnNotFoundError
from turnwire_server.domain.ids import Mint
from turnwire_server.domain.inference import Inference, InferenceState
from turnwire_server.domain.session import NewSession, Session, SessionChange, SessionOrigin
from turnwire_server.domain.turn import ROLES, Block, TurnSnapshot
from turnwire_server.stores.base import Waiting
from turnwire_server.stores.lease import Step
from turnwire_server.stores.start import Admission, StartCommand
from turnwire_server.wire.inference import to_proto as inference_to_proto
from turnwire_server.wire.session import to_proto as session_to_proto
from turnwire_server.wire.turn import encode_block
from turnwire_server.wire.turn import to_proto as turn_to_proto

# How long an idempotency key lives at least after its session is gone (contract: CreateSession, DeleteSession).
IDEMPOTENCY_KEY_ORPHAN_AGE_MIN = timedelta(hours=24)


def new_session(new: NewSession, log: str, mint: Mint, now: datetime, origin: SessionOrigin | None = None) -> Session:
    """Return the session that a client asked for, with the turns of its origin if it is a fork."""
    return Session(
        session_id=new.session_id or mint(),
        create_time=now,
        update_time=now,
        log=log,
        display_name=new.display_name,
        labels=dict(new.labels),
        metadata=dict(new.metadata),
        profile=new.profile,
        expire_time=None if new.ttl is None else now + new.ttl,
        config=new.config,
        turn_count=origin.index + 1 if origin else 0,
        origin=origin,
    )


def changed_session(session: Session, change: SessionChange, now: datetime) -> Session:
    """Return a session with the fields that `change` sets, one revision on."""
    is_set = {name: value for name in change.__slots__ if (value := getattr(change, name)) is not None}
    return replace(session, **is_set, update_time=now, revision=session.revision + 1)


def check_revision(session: Session, revision: int | None) -> None:
    """Raise RevisionMismatchError unless the session is at the revision that was expected, if one was."""
    if revision is not None and revision != session.revision:
        raise RevisionMismatchError(session_id=session.session_id, revision=session.revision)


def new_inference(command: StartCommand, admission: Admission, session_id: str, now: datetime) -> Inference:
    """Return the inference that a start was admitted with."""
    return Inference(
        session_id=session_id,
        inference_id=command.inference_id,
        state=InferenceState.QUEUED,
        create_time=now,
        profile=admission.profile,
        config=admission.config,
        attempts_max=command.attempts_max,
        deadline_time=None if command.timeout is None else now + command.timeout,
    )


def complete_blocks(blocks: Iterable[Block], mint: Mint) -> tuple[Block, ...]:
    """Return blocks that all have an id and a role."""
    return tuple(
        block
        if block.id and block.role
        else replace(block, id=block.id or mint(), role=block.role or ROLES[type(block.kind)])
        for block in blocks
    )


def block_content(block: Block) -> bytes:
    """Return the encoded block without its id: the same bytes for blocks that say the same."""
    return encode_block(replace(block, id=""))


def encode_map(texts: Mapping[str, str]) -> bytes:
    """Return a map as a JSON object in UTF-8: the same bytes for equal maps."""
    return json.dumps(dict(texts), sort_keys=True, ensure_ascii=False).encode()


def decode_map(data: bytes) -> dict[str, str]:
    """Return the map that `encode_map` made the bytes of."""
    texts: dict[str, str] = json.loads(data)
    return texts


def turn_metadata(own: Mapping[str, str], session_id: str, inference_id: str) -> dict[str, str]:
    """Return the metadata of a turn: what the client gave, and what the server sets, compatible with geppetto."""
    return {
        **own,
        "geppetto.session_id@v1": json.dumps(session_id),
        "geppetto.inference_id@v1": json.dumps(inference_id),
    }


def choose_fork_index(session_id: str, index: int | None, turn_count: int, first_open: int | None) -> int:
    """Return the index of the last turn that a fork shares: the one that was asked for, or else the last CLOSED one.

    `first_open` is the first turn that is OPEN, None if there is none.

    Errors: TurnNotFoundError, TurnNotClosedError.
    """
    closed_count = turn_count if first_open is None else first_open
    chosen = closed_count - 1 if index is None else index
    if not 0 <= chosen < turn_count:
        raise TurnNotFoundError(session_id=session_id, index=max(chosen, 0))
    if chosen >= closed_count:
        raise TurnNotClosedError(session_id=session_id, index=closed_count)
    return chosen


def check_cut(through: int, head: int, unfinished: Iterable[int]) -> None:
    """Raise ValueError unless a log may be cut after `through`; `unfinished` are first events that have to stay."""
    if through > head or any(through >= first for first in unfinished):
        msg = f"the log cannot be cut after {through}: its head is {head}, or an inference needs an event before"
        raise ValueError(msg)


def check_step(step: Step) -> None:
    """Raise ValueError for a step after which the client is waited for, and that has no event to tell of it."""
    if step.then is not InferenceState.RUNNING and not step.events:
        msg = f"step {step.number} leads to {step.then.name}, and no event tells of it: nobody would notice"
        raise ValueError(msg)


def session_bytes(session: Session) -> int:
    """Return how many bytes a session takes in a response."""
    return session_to_proto(session).ByteSize()


def snapshot_bytes(snapshot: TurnSnapshot) -> int:
    """Return how many bytes the turn of a snapshot takes in a response."""
    return turn_to_proto(snapshot.turn).ByteSize()


def waiting_bytes(waiting: Waiting) -> int:
    """Return how many bytes an inference that waits has, with all that belongs to it."""
    return inference_bytes(waiting.inference) + len(waiting.checkpoint)


def inference_bytes(inference: Inference) -> int:
    """Return how many bytes an inference takes in a response."""
    return inference_to_proto(inference).ByteSize()

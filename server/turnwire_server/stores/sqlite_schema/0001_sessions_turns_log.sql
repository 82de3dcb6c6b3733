-- The first schema: sessions, inferences, turns, and the event log.
--
-- Times are microseconds since 1970-01-01 UTC. State numbers are those of the contract: 1 is QUEUED, 2 is RUNNING.
-- Keys of AUTOINCREMENT are never used again, which is what cursors of listings rely on.

CREATE TABLE meta (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- The identity of this store. Whoever restores the file from a copy changes it: every log token changes with it.
INSERT INTO meta (name, value) VALUES ('incarnation', lower(hex(randomblob(8))));

-- Narrow, because every append writes it.
CREATE TABLE session (
    key INTEGER PRIMARY KEY AUTOINCREMENT,
    principal TEXT NOT NULL,
    session_id TEXT NOT NULL,
    log TEXT NOT NULL,
    head_sequence INTEGER NOT NULL DEFAULT 0,
    turn_count INTEGER NOT NULL DEFAULT 0,
    revision INTEGER NOT NULL DEFAULT 1,
    create_time INTEGER NOT NULL,
    update_time INTEGER NOT NULL,
    expire_time INTEGER,
    ttl INTEGER,
    UNIQUE (principal, session_id)
) STRICT;

CREATE INDEX session_listing ON session (principal, key);

-- What the client said about a session: wide, and seldom written. `metadata` is a JSON object.
CREATE TABLE description (
    session INTEGER PRIMARY KEY REFERENCES session ON DELETE CASCADE,
    display_name TEXT NOT NULL,
    profile TEXT NOT NULL,
    metadata BLOB NOT NULL
) STRICT;

CREATE TABLE label (
    session INTEGER NOT NULL REFERENCES session ON DELETE CASCADE,
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (session, name)
) STRICT, WITHOUT ROWID;

CREATE INDEX label_filter ON label (name, value, session);

-- `record` is an encoded turnwire.v1.Inference. The columns are what SQL looks at and what an append writes; where both
-- have a field, the column is right. `position` counts the events appended under leases, `block_count` the blocks that
-- the inference adds to its turn, the input included. `rank` orders the line of a session. `record` is the last column, so
-- that what is read without it stays off its pages.
CREATE TABLE inference (
    key INTEGER PRIMARY KEY AUTOINCREMENT,
    inference_id TEXT NOT NULL UNIQUE,
    session INTEGER NOT NULL REFERENCES session ON DELETE CASCADE,
    state INTEGER NOT NULL,
    is_active INTEGER NOT NULL,
    rank INTEGER NOT NULL,
    deadline INTEGER,
    cancel_requested INTEGER NOT NULL,
    owner TEXT,
    lease TEXT,
    position INTEGER NOT NULL DEFAULT 0,
    event_count INTEGER NOT NULL DEFAULT 0,
    first_sequence INTEGER NOT NULL DEFAULT 0,
    last_sequence INTEGER NOT NULL DEFAULT 0,
    block_count INTEGER NOT NULL DEFAULT 0,
    record BLOB NOT NULL
) STRICT;

-- The promise that at most one inference of a session is active.
CREATE UNIQUE INDEX inference_active ON inference (session) WHERE is_active = 1;
CREATE INDEX inference_listing ON inference (session, key);
CREATE INDEX inference_line ON inference (session, rank) WHERE state = 1;
-- All that is looked at to find what may run, the oldest first.
CREATE INDEX inference_waiting ON inference (key, session, rank, is_active) WHERE state = 1;
CREATE INDEX inference_deadline ON inference (deadline) WHERE state = 1;
-- All that a heartbeat reads.
CREATE INDEX inference_owner ON inference (owner, inference_id, cancel_requested) WHERE state = 2;

-- What an unfinished inference was asked for; removed when it ends. `overrides` is an encoded turnwire.v1.Overrides,
-- `metadata` and `data` are JSON objects. Unless the parent is fixed, it is the newest turn when the inference first runs.
CREATE TABLE command (
    inference INTEGER PRIMARY KEY REFERENCES inference ON DELETE CASCADE,
    engine TEXT NOT NULL,
    overrides BLOB NOT NULL,
    metadata BLOB NOT NULL,
    data BLOB NOT NULL,
    is_parent_fixed INTEGER NOT NULL,
    parent INTEGER
) STRICT;

-- Contents, shared within a principal: encoded turnwire.v1.Block without its id, or a JSON object. A payload goes with the
-- last row that refers to it.
CREATE TABLE payload (
    key INTEGER PRIMARY KEY,
    principal TEXT NOT NULL,
    hash BLOB NOT NULL,
    content BLOB NOT NULL,
    UNIQUE (principal, hash)
) STRICT;

-- A turn is its parent plus the blocks of its inference; `first_block` counts the blocks that it has from its parent,
-- `given_count` those and the input.
-- It is open while it has no close_time.
CREATE TABLE turn (
    session INTEGER NOT NULL REFERENCES session ON DELETE CASCADE,
    turn_index INTEGER NOT NULL,
    parent INTEGER,
    id TEXT NOT NULL,
    inference INTEGER NOT NULL UNIQUE REFERENCES inference ON DELETE CASCADE,
    first_block INTEGER NOT NULL,
    given_count INTEGER NOT NULL,
    metadata INTEGER NOT NULL REFERENCES payload,
    data INTEGER NOT NULL REFERENCES payload,
    create_time INTEGER NOT NULL,
    close_time INTEGER,
    PRIMARY KEY (session, turn_index)
) STRICT, WITHOUT ROWID;

CREATE INDEX turn_metadata ON turn (metadata);
CREATE INDEX turn_data ON turn (data);

-- The blocks that an inference adds to its turn: its input, from the start on, then its output.
CREATE TABLE block (
    inference INTEGER NOT NULL REFERENCES inference ON DELETE CASCADE,
    ordinal INTEGER NOT NULL,
    id TEXT NOT NULL,
    payload INTEGER NOT NULL REFERENCES payload,
    PRIMARY KEY (inference, ordinal)
) STRICT, WITHOUT ROWID;

CREATE INDEX block_payload ON block (payload);

CREATE TRIGGER block_deleted AFTER DELETE ON block BEGIN
    DELETE FROM payload WHERE key = OLD.payload
        AND NOT EXISTS (SELECT 1 FROM block WHERE payload = OLD.payload)
        AND NOT EXISTS (SELECT 1 FROM turn WHERE metadata = OLD.payload)
        AND NOT EXISTS (SELECT 1 FROM turn WHERE data = OLD.payload);
END;

CREATE TRIGGER turn_deleted AFTER DELETE ON turn BEGIN
    DELETE FROM payload WHERE key IN (OLD.metadata, OLD.data)
        AND NOT EXISTS (SELECT 1 FROM block WHERE payload = payload.key)
        AND NOT EXISTS (SELECT 1 FROM turn WHERE metadata = payload.key)
        AND NOT EXISTS (SELECT 1 FROM turn WHERE data = payload.key);
END;

-- The log: what one commit appended for one inference, as joined frames. `state` is where the last of its events that moved
-- the inference moved it to.
CREATE TABLE chunk (
    key INTEGER PRIMARY KEY,
    session INTEGER NOT NULL REFERENCES session ON DELETE CASCADE,
    first_sequence INTEGER NOT NULL,
    last_sequence INTEGER NOT NULL,
    inference_id TEXT NOT NULL,
    state INTEGER,
    frames BLOB NOT NULL
) STRICT;

CREATE UNIQUE INDEX chunk_position ON chunk (session, last_sequence);

-- The gate of calls that create. A row outlives its session, which is NULL then, for as long as the contract says, from
-- `session_delete_time` on; a session cannot be deleted without that.
CREATE TABLE idempotency (
    principal TEXT NOT NULL,
    rpc TEXT NOT NULL,
    key TEXT NOT NULL,
    fingerprint BLOB NOT NULL,
    session INTEGER REFERENCES session,
    session_id TEXT NOT NULL DEFAULT '',
    inference_id TEXT NOT NULL DEFAULT '',
    session_delete_time INTEGER,
    PRIMARY KEY (principal, rpc, key)
) STRICT, WITHOUT ROWID;

CREATE INDEX idempotency_session ON idempotency (session);
CREATE INDEX idempotency_orphan ON idempotency (session_delete_time) WHERE session_delete_time IS NOT NULL;

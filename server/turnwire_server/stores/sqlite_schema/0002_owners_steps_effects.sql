-- Owners and their heartbeats, committed steps, effects of tools, and logs without their beginning.

-- The server processes that may own inferences. One that is not here is dead.
CREATE TABLE owner (
    id TEXT PRIMARY KEY,
    beats INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

-- `step` counts the committed steps; `holds_through` is the sequence of the last event that holds whatever becomes of the
-- attempt; `was_lost` says that it was leased to be recovered, `is_handed_back` that its last lease ended with that. An
-- inference that is RUNNING without a lease is lost.
ALTER TABLE inference ADD COLUMN step INTEGER NOT NULL DEFAULT 0;
ALTER TABLE inference ADD COLUMN holds_through INTEGER NOT NULL DEFAULT 0;
ALTER TABLE inference ADD COLUMN was_lost INTEGER NOT NULL DEFAULT 0;
ALTER TABLE inference ADD COLUMN is_handed_back INTEGER NOT NULL DEFAULT 0;
-- What holds of one that runs is what its claim told: queued if that is in the same chunk, started, and turn.opened.
UPDATE inference SET holds_through = coalesce((
    SELECT c.first_sequence + iif(c.first_sequence = inference.first_sequence, 2, 1) FROM chunk c
    WHERE c.session = inference.session AND c.inference_id = inference.inference_id AND c.state = 2
    ORDER BY c.first_sequence LIMIT 1
), last_sequence) WHERE state = 2;

-- What the runtime committed with the last step of an unfinished inference.
CREATE TABLE checkpoint (
    inference INTEGER PRIMARY KEY REFERENCES inference ON DELETE CASCADE,
    content BLOB NOT NULL
) STRICT;

-- The tool calls of an unfinished inference since its last step. `outcome` is NULL while it is not known.
CREATE TABLE effect (
    key INTEGER PRIMARY KEY,
    inference INTEGER NOT NULL REFERENCES inference ON DELETE CASCADE,
    call TEXT NOT NULL,
    outcome BLOB,
    UNIQUE (inference, call)
) STRICT;

-- Where a log begins that was cut, and what its events up to there amount to.
CREATE TABLE base (
    session INTEGER PRIMARY KEY REFERENCES session ON DELETE CASCADE,
    through_sequence INTEGER NOT NULL,
    fold BLOB NOT NULL
) STRICT;

-- Calls that have happened, and may be sent again for a while.
CREATE TABLE token (
    token TEXT PRIMARY KEY,
    create_time INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX token_age ON token (create_time);

-- All that a heartbeat reads.
DROP INDEX inference_owner;
CREATE INDEX inference_owner ON inference (owner, inference_id, lease, cancel_requested) WHERE state = 2;
CREATE UNIQUE INDEX inference_lease ON inference (lease) WHERE state = 2;

DROP INDEX inference_deadline;
CREATE INDEX inference_deadline ON inference (deadline) WHERE state < 5 AND deadline IS NOT NULL;

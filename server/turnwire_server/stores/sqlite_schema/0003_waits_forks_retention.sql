-- Waits that end by themselves, snapshots of turns, data of turns that change, and step mode; then forks, sessions that are
-- deleted by themselves, and logs whose beginning has become old.

-- When an inference that waits for its client has waited long enough; NULL if that never comes, or if it does not wait.
ALTER TABLE inference ADD COLUMN wake INTEGER;

-- All that is looked at to find what is due, the longest due first.
CREATE INDEX inference_due ON inference (wake) WHERE wake IS NOT NULL;
-- All that waits for a client, the oldest first: 3 is WAITING_FOR_TOOLS, 4 is PAUSED.
CREATE INDEX inference_client ON inference (state, key, session) WHERE state = 3 OR state = 4;

-- How many blocks a turn had, its parent's included, at moments between the phases of its inference, the oldest first.
CREATE TABLE mark (
    inference INTEGER NOT NULL REFERENCES inference ON DELETE CASCADE,
    ordinal INTEGER NOT NULL,
    phase INTEGER NOT NULL,
    iteration INTEGER NOT NULL,
    block_count INTEGER NOT NULL,
    create_time INTEGER NOT NULL,
    PRIMARY KEY (inference, ordinal)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER turn_data_replaced AFTER UPDATE OF data ON turn BEGIN
    DELETE FROM payload WHERE key = OLD.data
        AND NOT EXISTS (SELECT 1 FROM block WHERE payload = OLD.data)
        AND NOT EXISTS (SELECT 1 FROM turn WHERE metadata = OLD.data)
        AND NOT EXISTS (SELECT 1 FROM turn WHERE data = OLD.data);
END;

-- `config` is an encoded turnwire.v1.InferenceConfig. The step mode is on if it has an action, one of the contract's;
-- its deadline is in microseconds.
ALTER TABLE description ADD COLUMN config BLOB NOT NULL DEFAULT x'';
ALTER TABLE description ADD COLUMN step_deadline INTEGER;
ALTER TABLE description ADD COLUMN step_action INTEGER;

-- A fork has its turns up to `trunk_index` from the session `trunk`. That is the one that has the turn `trunk_index` itself:
-- the origin, or a session that the origin has it from. It stays as long as it is somebody's trunk, deleted or not.
ALTER TABLE session ADD COLUMN trunk INTEGER REFERENCES session;
ALTER TABLE session ADD COLUMN trunk_index INTEGER;
CREATE INDEX session_trunk ON session (trunk, trunk_index) WHERE trunk IS NOT NULL;

-- The session_id of a fork's origin, which may be gone or another session's by now.
ALTER TABLE description ADD COLUMN origin TEXT;

-- The session that has the parent of a turn, NULL if it is the turn's own.
ALTER TABLE turn ADD COLUMN parent_session INTEGER;

-- Of a deleted session: up to which key its inferences were looked through for what may go. NULL: there is nothing to remove,
-- because it is not deleted, or because all that is left of it are turns that forks share.
ALTER TABLE session ADD COLUMN purged_through INTEGER;
UPDATE session SET purged_through = 0 WHERE principal = '';
CREATE INDEX session_purge ON session (key) WHERE purged_through IS NOT NULL;

-- When to see whether the session has to go: its expire_time; or NULL, where that has come and an inference had not ended.
ALTER TABLE session ADD COLUMN due_time INTEGER;
UPDATE session SET due_time = expire_time WHERE principal <> '';
CREATE INDEX session_due ON session (due_time) WHERE due_time IS NOT NULL;

-- NULL while it has not ended. What ended before this column was here has the time of its turn. What never had a turn counts
-- as ended long ago: its two events can at most be cut earlier than others.
ALTER TABLE inference ADD COLUMN end_time INTEGER;
UPDATE inference SET end_time = coalesce((SELECT close_time FROM turn WHERE turn.inference = inference.key), 0)
    WHERE state >= 5;

-- The first inference that may have an event behind the base; all that have lower keys do not.
ALTER TABLE base ADD COLUMN first_inference INTEGER NOT NULL DEFAULT 0;

-- When the inferences had all ended that the log begins with: those that have an event at its first sequence, or before and
-- behind it. NULL: one of them has not ended, or there is no event.
ALTER TABLE session ADD COLUMN retire_time INTEGER;
UPDATE session SET retire_time = (
    SELECT iif(count(*) = count(i.end_time), max(i.end_time), NULL)
    FROM inference i LEFT JOIN base b ON b.session = i.session
    WHERE i.session = session.key AND i.first_sequence <= coalesce(b.through_sequence, 0) + 1
        AND i.last_sequence > coalesce(b.through_sequence, 0)
) WHERE principal <> '';
CREATE INDEX session_retirement ON session (retire_time) WHERE retire_time IS NOT NULL;

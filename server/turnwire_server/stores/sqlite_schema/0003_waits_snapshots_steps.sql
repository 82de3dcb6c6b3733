-- Waits that last long enough some time, snapshots of turns, data of turns that change, and step mode.

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

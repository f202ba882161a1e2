-- Sequence values are all of u64, which SQLite's signed integers are not: they are TEXT of exactly 20 digits, zero-filled,
-- so that text order is numeric order and a person with a shell can read them. Times are INTEGER milliseconds since
-- 1970-01-01T00:00:00Z, ID timestamps milliseconds since the snowflake epoch.

-- Facts about this database, once each: the layout of snowflake IDs that it was first used with.
CREATE TABLE meta (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- One row for each prefix key that was ever registered; `rule` is NULL while it is deleted.
CREATE TABLE rules (
    prefix_key TEXT PRIMARY KEY,
    revision   INTEGER NOT NULL CHECK (revision > 0),
    rule       TEXT,
    history    TEXT NOT NULL,
    used       INTEGER NOT NULL CHECK (used IN (0, 1))
) STRICT, WITHOUT ROWID;

-- One row for each counter: continuous and strict rules draw on the same cursor, so a change of mode carries it over.
-- Everything above `base` and at or below `last` is issued, or listed in `holes`.
CREATE TABLE counters (
    prefix_key       TEXT NOT NULL,
    period           TEXT NOT NULL,
    base             TEXT NOT NULL CHECK (length(base) = 20),
    last             TEXT NOT NULL CHECK (length(last) = 20 AND last >= base),
    -- While values are being drawn: the cursor one to two seconds ago, and the highest idempotency.id at that time. What was
    -- drawn since may not have reached its caller when the process dies; the next start lists it as `unconfirmed`.
    unsettled_from   TEXT CHECK (length(unsettled_from) = 20),
    unsettled_record INTEGER,
    -- The account of the ledger: its latest run, the hash of its last row, and the same of its events.
    run_first        TEXT CHECK (length(run_first) = 20),
    run_last         TEXT CHECK (length(run_last) = 20),
    ledger_head      TEXT NOT NULL DEFAULT '',
    events           INTEGER NOT NULL DEFAULT 0,
    events_head      TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (prefix_key, period)
) STRICT, WITHOUT ROWID;

-- Ranges at or below a cursor that were not issued, or perhaps not, with the reason.
CREATE TABLE holes (
    prefix_key TEXT NOT NULL,
    period     TEXT NOT NULL,
    from_value TEXT NOT NULL CHECK (length(from_value) = 20),
    to_value   TEXT NOT NULL CHECK (length(to_value) = 20 AND to_value >= from_value),
    reason     TEXT NOT NULL,
    since_ms   INTEGER NOT NULL,
    PRIMARY KEY (prefix_key, period, from_value)
) STRICT, WITHOUT ROWID;

-- What each Idempotency-Key was given. `id` rises with every row, also across restarts; the counter is NULL where the values
-- came from elsewhere (snowflake). `value_ranges` reads `1-3,7`.
CREATE TABLE idempotency (
    id            INTEGER PRIMARY KEY,
    scoped_key    TEXT NOT NULL UNIQUE,
    fingerprint   BLOB NOT NULL CHECK (length(fingerprint) = 32),
    stamp         TEXT NOT NULL,
    value_ranges  TEXT NOT NULL,
    prefix_key    TEXT,
    period        TEXT,
    expires_at_ms INTEGER NOT NULL
) STRICT;

CREATE INDEX idempotency_expiry ON idempotency (expires_at_ms);

-- One row for every integer of a strict counter. `number` is empty where no text was ever made (void from birth).
-- `hash` covers all columns but `state` and `reason`, how the row was born, and the row before.
CREATE TABLE ledger (
    prefix_key        TEXT NOT NULL,
    period            TEXT NOT NULL,
    sequence          TEXT NOT NULL CHECK (length(sequence) = 20),
    number            TEXT NOT NULL,
    state             TEXT NOT NULL CHECK (state IN ('reserved', 'issued', 'void')),
    reason            TEXT,
    subject           TEXT NOT NULL,
    reserved_until_ms INTEGER,
    issued_at_ms      INTEGER NOT NULL,
    idempotency_key   TEXT,
    hash              TEXT NOT NULL,
    PRIMARY KEY (prefix_key, period, sequence),
    FOREIGN KEY (prefix_key, period) REFERENCES counters
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX ledger_numbers ON ledger (prefix_key, number) WHERE number <> '';
CREATE INDEX ledger_reservations ON ledger (reserved_until_ms) WHERE state = 'reserved';

-- Every change of state of a ledger row, chained by hashes of its own.
CREATE TABLE ledger_events (
    prefix_key TEXT NOT NULL,
    period     TEXT NOT NULL,
    position   INTEGER NOT NULL CHECK (position > 0),
    sequence   TEXT NOT NULL CHECK (length(sequence) = 20),
    change     TEXT NOT NULL CHECK (change IN ('confirmed', 'voided', 'expired')),
    reason     TEXT,
    actor      TEXT NOT NULL,
    at_ms      INTEGER NOT NULL,
    hash       TEXT NOT NULL,
    PRIMARY KEY (prefix_key, period, position),
    FOREIGN KEY (prefix_key, period, sequence) REFERENCES ledger
) STRICT, WITHOUT ROWID;

CREATE TRIGGER ledger_content_is_final
BEFORE UPDATE OF prefix_key, period, sequence, number, subject, reserved_until_ms, issued_at_ms, idempotency_key, hash ON ledger
BEGIN SELECT RAISE(ABORT, 'what a ledger row says is final'); END;

CREATE TRIGGER ledger_state_moves_on
BEFORE UPDATE OF state, reason ON ledger
WHEN NOT (OLD.state = 'reserved' AND NEW.state IN ('issued', 'void') OR OLD.state = 'issued' AND NEW.state = 'void')
BEGIN SELECT RAISE(ABORT, 'a ledger row never goes back to an earlier state'); END;

CREATE TRIGGER ledger_rows_stay
BEFORE DELETE ON ledger
BEGIN SELECT RAISE(ABORT, 'ledger rows are never deleted'); END;

CREATE TRIGGER ledger_events_are_final
BEFORE UPDATE ON ledger_events
BEGIN SELECT RAISE(ABORT, 'ledger events are final'); END;

CREATE TRIGGER ledger_events_stay
BEFORE DELETE ON ledger_events
BEGIN SELECT RAISE(ABORT, 'ledger events are never deleted'); END;

-- Worker slots: a holder issues ID timestamps above `start_ms` up to `mark_ms`. `nonce` is NULL while nobody holds it.
CREATE TABLE worker_slots (
    slot     INTEGER PRIMARY KEY,
    nonce    BLOB CHECK (length(nonce) = 16),
    fence    INTEGER NOT NULL,
    start_ms INTEGER NOT NULL,
    mark_ms  INTEGER NOT NULL CHECK (mark_ms >= start_ms)
) STRICT;

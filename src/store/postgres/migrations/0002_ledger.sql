-- Strict counters and their ledgers. Rows refer to their counter by number: text in every row and index would cost a third of the speed.
-- The view numgen_ledger_rows shows them to people.

CREATE TYPE numgen_ledger_state AS ENUM ('reserved', 'issued', 'void');

-- One row for each prefix key that has a counter here. scheme: schemes of counters below it draw nothing any more. Its row lock lets
-- either new counters of the key be made, or schemes be retired.
CREATE TABLE numgen_ledger_keys (
    id         integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    prefix_key text COLLATE "C" NOT NULL UNIQUE,
    scheme     bigint NOT NULL DEFAULT 0 CHECK (scheme >= 0)
);

-- One row for each counter; its row lock is the queue of those who draw. Everything above base and at or below last has a row in
-- numgen_ledger, or is listed in numgen_ledger_holes; both are NULL while nothing was drawn and nothing is known.
CREATE TABLE numgen_ledger_counters (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    prefix      integer NOT NULL REFERENCES numgen_ledger_keys,
    period      text COLLATE "C" NOT NULL,
    -- Counts what changes the columns below it down to head: who knows it knows them.
    version     bigint NOT NULL DEFAULT 0,
    scheme      bigint NOT NULL CHECK (scheme >= 0),
    base        numeric(20) CHECK (base BETWEEN 0 AND 18446744073709551615),
    last        numeric(20) CHECK (last BETWEEN base AND 18446744073709551615),
    -- The account of the ledger: its latest run, the hash of its last row, and the same of its events.
    run_first   numeric(20),
    run_last    numeric(20) CHECK (run_last BETWEEN run_first AND last),
    head        text NOT NULL DEFAULT '',
    events      bigint NOT NULL DEFAULT 0 CHECK (events >= 0),
    events_head text NOT NULL DEFAULT '',
    -- Which process wrote the present version, and which of its batches that was: whoever lost the answer finds it here, or below.
    writer      bytea CHECK (length(writer) = 16),
    batch       bigint,
    UNIQUE (prefix, period),
    CHECK ((base IS NULL) = (last IS NULL)),
    CHECK ((run_first IS NULL) = (run_last IS NULL))
    -- Room for new versions of a row beside it: an UPDATE touches no index.
) WITH (fillfactor = 20);

-- The last batch of each process that another process has written over in numgen_ledger_counters. Kept for an hour.
CREATE TABLE numgen_ledger_writers (
    counter  bigint NOT NULL,
    writer   bytea NOT NULL CHECK (length(writer) = 16),
    batch    bigint NOT NULL,
    noted_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (counter, writer)
) WITH (fillfactor = 50);

-- One row for every integer of a strict counter. number is empty where no text was ever made (void from birth).
-- hash covers all columns but state and reason, how the row was born, and the row before.
CREATE TABLE numgen_ledger (
    sequence          numeric(20) NOT NULL,
    counter           bigint NOT NULL,
    issued_at_ms      bigint NOT NULL,
    reserved_until_ms bigint,
    prefix            integer NOT NULL,
    state             numgen_ledger_state NOT NULL,
    number            text COLLATE "C" NOT NULL,
    subject           text NOT NULL,
    hash              bytea NOT NULL,
    reason            text,
    idempotency_key   text,
    PRIMARY KEY (counter, sequence)
);

CREATE UNIQUE INDEX numgen_ledger_numbers ON numgen_ledger (prefix, number) WHERE number <> '';
-- Small where most rows are issued: a certificate counts the rest here.
CREATE INDEX numgen_ledger_others ON numgen_ledger (counter, sequence) INCLUDE (state) WHERE state <> 'issued';
CREATE INDEX numgen_ledger_reservations ON numgen_ledger (reserved_until_ms) WHERE state = 'reserved';

-- Every change of state of a ledger row, chained by hashes of its own.
CREATE TABLE numgen_ledger_events (
    counter  bigint NOT NULL,
    position bigint NOT NULL CHECK (position > 0),
    sequence numeric(20) NOT NULL,
    change   text NOT NULL CHECK (change IN ('confirmed', 'voided', 'expired')),
    reason   text,
    actor    text NOT NULL,
    at_ms    bigint NOT NULL,
    hash     text NOT NULL,
    PRIMARY KEY (counter, position)
);

-- Ranges at or below a cursor that have no row in the ledger, with the reason.
CREATE TABLE numgen_ledger_holes (
    counter    bigint NOT NULL REFERENCES numgen_ledger_counters,
    from_value numeric(20) NOT NULL,
    to_value   numeric(20) NOT NULL CHECK (to_value >= from_value),
    reason     text NOT NULL,
    since_ms   bigint NOT NULL,
    PRIMARY KEY (counter, from_value)
);

CREATE FUNCTION numgen_ledger_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '%', TG_ARGV[0] USING ERRCODE = 'integrity_constraint_violation';
END
$$;

CREATE TRIGGER numgen_ledger_content_is_final
BEFORE UPDATE ON numgen_ledger FOR EACH ROW
WHEN ((OLD.sequence, OLD.counter, OLD.issued_at_ms, OLD.reserved_until_ms, OLD.prefix, OLD.number, OLD.subject, OLD.hash, OLD.idempotency_key)
    IS DISTINCT FROM
    (NEW.sequence, NEW.counter, NEW.issued_at_ms, NEW.reserved_until_ms, NEW.prefix, NEW.number, NEW.subject, NEW.hash, NEW.idempotency_key))
EXECUTE FUNCTION numgen_ledger_refuse('what a ledger row says is final');

CREATE TRIGGER numgen_ledger_state_moves_on
BEFORE UPDATE ON numgen_ledger FOR EACH ROW
WHEN ((OLD.state, OLD.reason) IS DISTINCT FROM (NEW.state, NEW.reason)
    AND NOT (OLD.state = 'reserved' AND NEW.state IN ('issued', 'void') OR OLD.state = 'issued' AND NEW.state = 'void'))
EXECUTE FUNCTION numgen_ledger_refuse('a ledger row never goes back to an earlier state');

CREATE TRIGGER numgen_ledger_rows_stay
BEFORE DELETE OR TRUNCATE ON numgen_ledger FOR EACH STATEMENT
EXECUTE FUNCTION numgen_ledger_refuse('ledger rows are never deleted');

CREATE TRIGGER numgen_ledger_events_are_final
BEFORE UPDATE OR DELETE OR TRUNCATE ON numgen_ledger_events FOR EACH STATEMENT
EXECUTE FUNCTION numgen_ledger_refuse('ledger events are final');

-- For people.
CREATE VIEW numgen_ledger_rows AS
SELECT k.prefix_key, c.period, l.sequence, l.number, l.state, l.reason, l.subject, l.reserved_until_ms, l.issued_at_ms,
    l.idempotency_key, encode(l.hash, 'hex') AS hash
FROM numgen_ledger l
JOIN numgen_ledger_counters c ON c.id = l.counter
JOIN numgen_ledger_keys k ON k.id = c.prefix;

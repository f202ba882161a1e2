-- Times are bigint milliseconds since 1970-01-01T00:00:00Z, ID timestamps milliseconds since the snowflake epoch.
-- Sequence values are numeric(20): all of an unsigned 64-bit integer.

-- One row: names this database as long as it remembers what it was told, and counts the changes of the register of rules.
CREATE TABLE numgen_register (
    singleton  boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    generation numeric(20) NOT NULL,
    change     bigint NOT NULL DEFAULT 0
);

-- One row for each prefix key that was ever registered; rule is NULL while it is deleted.
CREATE TABLE numgen_rules (
    prefix_key text COLLATE "C" PRIMARY KEY,
    revision   bigint NOT NULL CHECK (revision > 0),
    rule       text,
    history    text NOT NULL,
    used       boolean NOT NULL,
    change     bigint NOT NULL UNIQUE
);

-- What each Idempotency-Key was given, in every mode. key is the SHA-256 of the key in its scope; value_ranges reads 1-3,7.
CREATE TABLE numgen_idempotency (
    key           bytea PRIMARY KEY CHECK (length(key) = 32),
    fingerprint   bytea NOT NULL CHECK (length(fingerprint) = 32),
    stamp         text NOT NULL,
    value_ranges  text NOT NULL,
    expires_at_ms bigint NOT NULL
);

CREATE INDEX numgen_idempotency_expiry ON numgen_idempotency (expires_at_ms);

-- Layout, epoch and data centre of snowflake IDs, and under which server the marks were written last.
CREATE TABLE numgen_workers (
    datacenter  integer PRIMARY KEY,
    layout      text,
    generation  numeric(20) NOT NULL,
    instance    text NOT NULL,
    settling_until numeric(20) NOT NULL
);

-- One row for each worker slot that was ever held. mark is the highest ID timestamp that anybody was allowed to use there.
CREATE TABLE numgen_worker_slots (
    datacenter integer NOT NULL,
    slot       integer NOT NULL,
    mark       numeric(20) NOT NULL,
    fence      bigint NOT NULL,
    instance   text NOT NULL,
    nonce      bytea CHECK (length(nonce) = 16),
    start      numeric(20),
    expires    numeric(20),
    PRIMARY KEY (datacenter, slot)
);

-- Temporary numbers of all nodes, with the final number that each was given.
CREATE TABLE numgen_temporary (
    number       text COLLATE "C" PRIMARY KEY,
    prefix_key   text COLLATE "C" NOT NULL,
    status       text NOT NULL CHECK (status IN ('open', 'assigned', 'void')),
    revision     bigint NOT NULL,
    final_number text,
    content      text NOT NULL
);

CREATE INDEX numgen_temporary_by_status ON numgen_temporary (status, number);
CREATE UNIQUE INDEX numgen_temporary_final ON numgen_temporary (prefix_key, final_number) WHERE final_number IS NOT NULL;

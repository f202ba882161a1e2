-- Times are bigint milliseconds since 1970-01-01T00:00:00Z, ID timestamps milliseconds since the snowflake epoch. Sequence values are
-- numeric(20): all of an unsigned 64-bit integer.

-- One row, written at the first contact. generation names this database as long as it remembers what it was told; since_ms is when it
-- was written, server the numgen_server() for which; change counts the changes of numgen_rules.
CREATE TABLE numgen_memory (
    singleton  boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    generation numeric(20) NOT NULL,
    server     bigint NOT NULL,
    since_ms   bigint NOT NULL,
    change     bigint NOT NULL DEFAULT 0
);

-- Changes whenever this database may have forgotten something: another cluster (restored from a dump), another timeline (a standby was
-- promoted, or a backup was recovered up to a point in time), or the tables were made anew.
CREATE FUNCTION numgen_server() RETURNS bigint LANGUAGE sql VOLATILE AS $$
    SELECT hashtextextended(concat_ws('/', system_identifier, left(pg_walfile_name(pg_current_wal_lsn()), 8),
                                      'numgen_memory'::regclass::oid), 0)
    FROM pg_control_system()
$$;

-- One row for each prefix key that was ever registered; rule is NULL while it is deleted. Transactions that write here hold the row of
-- numgen_memory, so that what is seen of change has no gaps that are filled later.
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

-- The layout of snowflake IDs of each data centre, as it was first used.
CREATE TABLE numgen_layouts (
    datacenter integer PRIMARY KEY,
    layout     text NOT NULL
);

-- The marker of the worker slots of each data centre; NULL before the first contact. Whoever changes more than one slot that is held
-- in the present generation locks this row first.
CREATE TABLE numgen_worker_memory (
    datacenter integer PRIMARY KEY,
    generation numeric(20),
    server     bigint,
    since      bigint,
    settled    boolean NOT NULL DEFAULT false
);

-- One row for each worker slot that was ever held; mark is the highest ID timestamp that anybody was ever allowed to use there, hearsay
-- whether its holder put it back.
CREATE TABLE numgen_worker_slots (
    datacenter integer NOT NULL,
    slot       integer NOT NULL CHECK (slot >= 0),
    owner      bytea CHECK (length(owner) = 16),
    fence      bigint NOT NULL,
    start      bigint NOT NULL,
    mark       bigint NOT NULL,
    expires    bigint NOT NULL,
    generation numeric(20) NOT NULL,
    hearsay    boolean NOT NULL,
    PRIMARY KEY (datacenter, slot)
);

-- Temporary numbers of all nodes. Unique on both sides: a number has one row, a final number stands for one of them.
CREATE TABLE numgen_temporary (
    number       text COLLATE "C" PRIMARY KEY,
    prefix_key   text COLLATE "C" NOT NULL,
    status       text NOT NULL CHECK (status IN ('open', 'assigned', 'void')),
    revision     bigint NOT NULL CHECK (revision >= 0),
    final_number text,
    content      text NOT NULL,
    CHECK ((status = 'assigned') = (final_number IS NOT NULL))
);

CREATE INDEX numgen_temporary_status ON numgen_temporary (status, number);
CREATE UNIQUE INDEX numgen_temporary_final ON numgen_temporary (prefix_key, final_number) WHERE final_number IS NOT NULL;

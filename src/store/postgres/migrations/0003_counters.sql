-- Continuous counters. Times are in milliseconds since 1970-01-01T00:00:00Z, values numeric(20): all of an unsigned 64-bit integer.

-- One row: names a stretch of time in which this database has forgotten nothing, and the numgen_server() for which it was written. On
-- another one (a promoted standby, a restored backup) nodes report before anything is drawn.
CREATE TABLE numgen_counter_marker (
    singleton  boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    generation numeric(20) NOT NULL,
    server     bigint NOT NULL,
    since_ms   numeric(20) NOT NULL,
    settled    boolean NOT NULL
) WITH (fillfactor = 50);

-- Of each prefix key the lowest scheme of counters that may still draw.
CREATE TABLE numgen_counter_keys (
    prefix_key text COLLATE "C" PRIMARY KEY,
    scheme     numeric(20) NOT NULL
);

-- One row for each counter that anybody has asked for; state is NULL until something is known of it. last is the cursor: nothing at
-- or below it is drawn again. Nothing that changes is indexed, so that an update stays on its page.
CREATE TABLE numgen_counters (
    prefix_key  text COLLATE "C" NOT NULL,
    period      text COLLATE "C" NOT NULL,
    origin      numeric(20),
    base        numeric(20),
    last        numeric(20),
    state       json,
    archived_to numeric(20),
    PRIMARY KEY (prefix_key, period),
    CHECK ((state IS NULL) = (last IS NULL) AND (last IS NULL) = (base IS NULL) AND (base IS NULL) = (origin IS NULL))
) WITH (fillfactor = 50);

-- Holes that are long past; the latest are in the state. archived_to is the highest value of these.
CREATE TABLE numgen_counter_holes (
    prefix_key text COLLATE "C" NOT NULL,
    period     text COLLATE "C" NOT NULL,
    first      numeric(20) NOT NULL,
    last       numeric(20) NOT NULL CHECK (first <= last),
    reason     text NOT NULL,
    since_ms   numeric(20) NOT NULL,
    PRIMARY KEY (prefix_key, period, last),
    FOREIGN KEY (prefix_key, period) REFERENCES numgen_counters
);

-- For people: how far each counter has come. period is empty for a rule without a reset.
CREATE VIEW numgen_sequences AS
    SELECT prefix_key AS key, period, last FROM numgen_counters WHERE last > origin OR base > origin;

-- Strict counters are drawn only where numgen_ledger_marker says: on a server that may have forgotten what was acknowledged (a restored
-- dump, a promoted standby, files that were put back) every number that it lacks would be issued again.

-- Which tables of which database of which cluster these are: another one after a dump was loaded, wherever it was loaded.
CREATE FUNCTION numgen_ledger_home() RETURNS text LANGUAGE sql VOLATILE AS $$
    SELECT concat_ws('/', system_identifier, (SELECT oid FROM pg_database WHERE datname = current_database()),
                     'numgen_ledger_counters'::regclass::oid)
    FROM pg_control_system()
$$;

-- Another one after a standby was promoted, or a backup was recovered to a point in time.
CREATE FUNCTION numgen_ledger_timeline() RETURNS text LANGUAGE sql VOLATILE AS $$
    SELECT left(pg_walfile_name(pg_current_wal_lsn()), 8)
$$;

-- One row. Its lock lets one at a time look whether anything is lacking.
CREATE TABLE numgen_ledger_marker (
    singleton         boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    home              text NOT NULL,
    timeline          text NOT NULL,
    -- Rises when a person resumes: what processes remember of before is settled.
    era               bigint NOT NULL DEFAULT 0,
    -- Until a person resumes: which node found that something is lacking that the server had acknowledged.
    forgotten_of      text,
    -- The timeline that is being looked at, and since when.
    checking          text,
    checking_since_ms bigint
) WITH (fillfactor = 50);

INSERT INTO numgen_ledger_marker (home, timeline) VALUES (numgen_ledger_home(), numgen_ledger_timeline());

-- One row for each process that may draw. What it remembers of its own signs of life tells whether this server lacks any.
CREATE TABLE numgen_ledger_processes (
    process      bytea PRIMARY KEY CHECK (length(process) = 16),
    node         text NOT NULL,
    beat         bigint NOT NULL,
    beaten_at_ms bigint NOT NULL,
    -- Whether a commit was on a standby too before it was acknowledged.
    replicated   boolean NOT NULL,
    -- The timeline under which it found everything that it remembers.
    attested     text
) WITH (fillfactor = 20);

-- What nodes had been told and this ledger lacks: how far each counter has to be advanced before a person resumes.
CREATE TABLE numgen_ledger_lost (
    prefix_key text COLLATE "C" NOT NULL,
    period     text COLLATE "C" NOT NULL,
    last       numeric(20) NOT NULL,
    node       text NOT NULL,
    PRIMARY KEY (prefix_key, period)
);

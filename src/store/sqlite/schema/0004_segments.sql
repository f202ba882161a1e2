-- Counters that are shared with other nodes: what this node holds ahead of the cursor, for the time in which their store is away.
-- `incarnation` is the process by which the row was written, `ancestors` are those before it (16 bytes each, the latest last).
-- `issued` counts from the beginning of the segment; `used` reads `1-3,7`; `seen` is the highest cursor that was heard of.
CREATE TABLE segments (
    prefix_key    TEXT NOT NULL,
    period        TEXT NOT NULL,
    incarnation   BLOB NOT NULL CHECK (length(incarnation) = 16),
    ancestors     BLOB NOT NULL CHECK (length(ancestors) % 16 = 0),
    base          TEXT NOT NULL CHECK (length(base) = 20),
    highest       TEXT NOT NULL CHECK (length(highest) = 20),
    from_value    TEXT CHECK (length(from_value) = 20),
    to_value      TEXT CHECK (length(to_value) = 20 AND to_value >= from_value),
    issued        INTEGER NOT NULL CHECK (issued >= 0),
    used          TEXT NOT NULL,
    seen          TEXT CHECK (length(seen) = 20),
    touched_at_ms INTEGER NOT NULL,
    PRIMARY KEY (prefix_key, period)
) STRICT, WITHOUT ROWID;

CREATE INDEX segments_held ON segments (from_value) WHERE from_value IS NOT NULL;

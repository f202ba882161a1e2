-- What this process last knew of a register of rules that is kept elsewhere: for a start while that is away, and to write back what it
-- has lost. The columns of `rules`.
CREATE TABLE rule_copy (
    prefix_key TEXT PRIMARY KEY,
    revision   INTEGER NOT NULL CHECK (revision > 0),
    rule       TEXT,
    history    TEXT NOT NULL,
    used       INTEGER NOT NULL CHECK (used IN (0, 1))
) STRICT, WITHOUT ROWID;

-- How far the copy goes: one row.
CREATE TABLE rule_copy_mark (
    only_one    INTEGER PRIMARY KEY CHECK (only_one = 1),
    generation  TEXT NOT NULL,
    change      INTEGER NOT NULL,
    saved_at_ms INTEGER NOT NULL
) STRICT;

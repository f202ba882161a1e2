-- Who changed what, when, from where. `details` is JSON: what changed, never what a rule says.
CREATE TABLE audit (
    position   INTEGER PRIMARY KEY,
    at_ms      INTEGER NOT NULL,
    prefix_key TEXT NOT NULL,
    action     TEXT NOT NULL,
    subject    TEXT NOT NULL,
    -- NULL where nobody asked: the program itself, or a write past it.
    address    TEXT,
    request_id TEXT,
    details    TEXT NOT NULL
) STRICT;

CREATE INDEX audit_of_key ON audit (prefix_key, position);

CREATE TRIGGER audit_entries_are_final
BEFORE UPDATE ON audit
BEGIN SELECT RAISE(ABORT, 'entries of the audit trail are final'); END;

CREATE TRIGGER audit_entries_stay
BEFORE DELETE ON audit
BEGIN SELECT RAISE(ABORT, 'entries of the audit trail are never deleted'); END;

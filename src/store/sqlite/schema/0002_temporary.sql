-- Temporary numbers: those that this node made, and those of others on which a decision was taken here. In profile embedded none
-- ever arises.
CREATE TABLE temporary_numbers (
    number       TEXT PRIMARY KEY,
    revision     INTEGER NOT NULL CHECK (revision >= 0),
    status       TEXT NOT NULL CHECK (status IN ('open', 'assigned', 'void')),
    -- The row as JSON.
    content      TEXT NOT NULL,
    -- When it was made, where it was made here: the next one is stamped above.
    stamp        INTEGER CHECK (stamp >= 0),
    -- Which instance of the shared store keeps the row as it stands; NULL while none does.
    acknowledged TEXT
) STRICT, WITHOUT ROWID;

CREATE INDEX temporary_numbers_stamp ON temporary_numbers (stamp) WHERE stamp IS NOT NULL;
CREATE INDEX temporary_numbers_status ON temporary_numbers (status, number);
CREATE INDEX temporary_numbers_acknowledged ON temporary_numbers (acknowledged);

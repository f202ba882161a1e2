-- Under which of the schemes of counters of its prefix key the segment was given out: once another node has retired that scheme the
-- segment may be given back, and nothing more is drawn for it.
ALTER TABLE segments ADD COLUMN scheme INTEGER NOT NULL DEFAULT 0 CHECK (scheme >= 0);

-- When the shared store first acknowledged the row as it stands: resolved numbers are kept for a while after that.
ALTER TABLE temporary_numbers ADD COLUMN acknowledged_at_ms INTEGER;

CREATE INDEX temporary_numbers_resolved ON temporary_numbers (acknowledged_at_ms)
    WHERE status <> 'open' AND acknowledged_at_ms IS NOT NULL;

-- When the counter's authority confirmed that this process holds nothing of it any more; NULL while it may.
ALTER TABLE segments ADD COLUMN left_at_ms INTEGER;

CREATE INDEX segments_left ON segments (left_at_ms) WHERE left_at_ms IS NOT NULL;

-- More about continuous counters, and two notes that bound how far they skip once this database has lost something. Columns, not fields of
-- the state: programs before this step refuse a state in which they find a field that they do not know, and leave columns alone.

-- How far segments reach; NULL: nobody has said. What was handed back ahead of the cursor, [[first, last], ...]; NULL: nothing.
ALTER TABLE numgen_counters
    ADD COLUMN horizon  numeric(20),
    ADD COLUMN returned json;

-- What was written until looked_ms is there wherever the marker is found so; lacks_ms is how much time may be lacking from what the
-- database holds, of losses before. Both hold for this generation only: a program before this step begins another one without them.
ALTER TABLE numgen_counter_marker
    ADD COLUMN looked_for numeric(20),
    ADD COLUMN looked_ms  numeric(20),
    ADD COLUMN lacks_ms   numeric(20);

-- Counters that all stand in the present generation lack nothing.
UPDATE numgen_counter_marker SET looked_for = generation, looked_ms = since_ms, lacks_ms = 0
WHERE NOT EXISTS (
    SELECT FROM numgen_counters
    WHERE state IS NOT NULL AND state ->> 'generation' IS DISTINCT FROM
        lpad(to_hex(div(generation, 4294967296)::bigint), 8, '0') || lpad(to_hex(mod(generation, 4294967296)::bigint), 8, '0')
);

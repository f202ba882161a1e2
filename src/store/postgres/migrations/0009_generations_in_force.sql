-- Of each memory of a Redis the last generation is in force. Programs before this step could end one by its own first fetches, where several
-- counters met in them: its Redis was granted nothing more. Nothing had followed it, so it is in force again: what ends a generation names
-- another in the same transaction, unless it speaks of that very one. (No value could be issued twice if it was an earlier one: grants begin
-- above all grants, whoever asks.) Who is ending one is waited for.
LOCK TABLE numgen_redis_generations IN SHARE ROW EXCLUSIVE MODE;
UPDATE numgen_redis_generations AS last SET is_over = false
WHERE NOT EXISTS (
    SELECT FROM numgen_redis_generations AS other
    WHERE (other.datacenter, other.marker) = (last.datacenter, last.marker)
      AND (NOT other.is_over OR (other.since_ms, other.generation) > (last.since_ms, last.generation)));

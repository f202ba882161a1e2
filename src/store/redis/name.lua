-- KEYS[1] the record   ARGV[1] a name for a Redis that has none, or '': leave it without
-- Answers the name that it has.
if ARGV[1] ~= '' then redis.call('SET', KEYS[1], ARGV[1], 'NX') end
return redis.call('GET', KEYS[1])

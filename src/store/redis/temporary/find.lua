-- One row. Follows settled.lua.
-- KEYS[2] rows   ARGV[2] number
return redis.call('HGET', KEYS[2], ARGV[2])

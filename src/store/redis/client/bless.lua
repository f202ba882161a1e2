-- Blesses a marker: the record by which every script knows that Redis still is what it was.
-- KEYS[1] marker   ARGV[1] a new random generation
-- Absent: written, settling begins. Under another master_replid: the generation is replaced, settling begins.
-- Answers the generation in force.
local marker, fresh = KEYS[1], ARGV[1]
local replid = string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)')
local known = redis.call('HMGET', marker, 'generation', 'replid')
if known[1] and known[2] == replid then
  return known[1]
end
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('HSET', marker, 'generation', fresh, 'replid', replid, 'since', string.format('%.0f', now_ms))
return fresh

-- Replaces a row if its revision is the one before the new one. Follows settled.lua.
-- KEYS[2] rows   [3] open   [4] assigned   [5] void
-- ARGV[2] number   [3] status   [4] revision   [5] content
-- Answers {'done'}, {'changed'} where there is no such row, or {'changed', the row that stands}.
local present = redis.call('HGET', KEYS[2], ARGV[2])
if not present then return { 'changed' } end
if tonumber(string.match(present, '^%d+')) + 1 ~= tonumber(ARGV[4]) then return { 'changed', present } end
redis.call('HSET', KEYS[2], ARGV[2], ARGV[4] .. ' ' .. ARGV[5])
local index = { open = KEYS[3], assigned = KEYS[4], void = KEYS[5] }
for name, key in pairs(index) do
  if name == ARGV[3] then redis.call('ZADD', key, 0, ARGV[2]) else redis.call('ZREM', key, ARGV[2]) end
end
return { 'done' }

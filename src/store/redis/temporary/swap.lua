-- Replaces a row if its revision is the one before the new one.
-- KEYS[1] rows   [2] open   [3] assigned   [4] void
-- ARGV[1] number   [2] status   [3] revision   [4] content
-- Answers {'done'}, {'changed'} where there is no such row, or {'changed', the row that stands}.
local present = redis.call('HGET', KEYS[1], ARGV[1])
if not present then return { 'changed' } end
if tonumber(string.match(present, '^%d+')) + 1 ~= tonumber(ARGV[3]) then return { 'changed', present } end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3] .. ' ' .. ARGV[4])
local index = { open = KEYS[2], assigned = KEYS[3], void = KEYS[4] }
for name, key in pairs(index) do
  if name == ARGV[2] then redis.call('ZADD', key, 0, ARGV[1]) else redis.call('ZREM', key, ARGV[1]) end
end
return { 'done' }

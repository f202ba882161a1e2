-- Keeps rows, and answers the generation under which they are kept. Follows marker.lua.
-- KEYS[1] marker   [2] rows   [3] all   [4] open   [5] assigned   [6] void: the numbers of each status in the order of texts
-- ARGV[1] a new random generation, for a marker that is not blessed   then for each row: number, status, revision, content
local generation = observe(KEYS[1], ARGV[1], unix_ms())
local index = { open = KEYS[4], assigned = KEYS[5], void = KEYS[6] }
for i = 2, #ARGV, 4 do
  local number, status, revision, content = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2]), ARGV[i + 3]
  local present = redis.call('HGET', KEYS[2], number)
  -- A row that has come further stands.
  if not present or tonumber(string.match(present, '^%d+')) < revision then
    redis.call('HSET', KEYS[2], number, revision .. ' ' .. content)
    redis.call('ZADD', KEYS[3], 0, number)
    for name, key in pairs(index) do
      if name == status then redis.call('ZADD', key, 0, number) else redis.call('ZREM', key, number) end
    end
  end
end
return generation

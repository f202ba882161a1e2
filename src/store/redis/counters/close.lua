-- Closes the list of a prefix key to lower schemes, and answers who is on it. Follows marker.lua.
-- KEYS: as enlist.lua, then the marker of their slot. ARGV: 1 scheme, 2 fresh generation.

local _, settling_ms = observe(KEYS[3], ARGV[2], unix_ms())
if tonumber(ARGV[1]) > tonumber(redis.call('GET', KEYS[2]) or 0) then
  redis.call('SET', KEYS[2], ARGV[1])
end
-- The list may have been forgotten: nodes that are told so enlist their counters again.
local answer = { whole(settling_ms) }
-- Not unpack(): the stack of Lua has no room for more than some thousands.
for i, period in ipairs(redis.call('SMEMBERS', KEYS[1])) do
  answer[i + 1] = period
end
return answer

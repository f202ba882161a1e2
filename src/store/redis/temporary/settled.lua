-- Refuses what rests on all decisions while nodes may still tell of some that were forgotten. Follows marker.lua.
-- KEYS[1] marker   ARGV[1] a new random generation, for a marker that is not blessed
local _, settling = observe(KEYS[1], ARGV[1], unix_ms())
if settling > 0 then return redis.error_reply('SETTLING temporary numbers, for another ' .. whole(settling) .. ' ms') end

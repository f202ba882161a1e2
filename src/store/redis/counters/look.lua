-- The generation under a marker. Follows marker.lua. KEYS: the marker. ARGV: 1 fresh generation.

local LOOK_MS = 5000

local now = unix_ms()
local generation = observe(KEYS[1], ARGV[1], now)
-- `Marker::note_look`. A server that takes no writes still says what it has.
if math.abs(now - tonumber(redis.call('HGET', KEYS[1], 'alive') or 0)) >= LOOK_MS then
  redis.pcall('HSET', KEYS[1], 'alive', whole(now))
end
return generation

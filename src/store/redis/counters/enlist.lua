-- Puts a counter on the list of its prefix key, and says whether its scheme may still draw.
-- KEYS: the list, the lowest scheme that may. ARGV: 1 scheme, 2 period.

local scheme, lowest = tonumber(ARGV[1]), tonumber(redis.call('GET', KEYS[2]) or 0)
-- Also where it may not: the list can have been lost, and whoever retires a scheme has to hear of all that drew under it.
redis.call('SADD', KEYS[1], ARGV[2])
if scheme < lowest then
  return 'superseded'
end
if scheme > lowest then
  -- The key was retired up to here before anybody could ask so: where that is not known, it was forgotten.
  redis.call('SET', KEYS[2], ARGV[1])
end
return 'listed'

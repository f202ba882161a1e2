-- A counter as it stands: the time, the fields of its state, its holes. Nothing where there is no counter.

local state = redis.call('HGETALL', KEYS[2])
if #state == 0 then
  return {}
end
local time = redis.call('TIME')
return { { string.format('%d', time[1] * 1000 + math.floor(time[2] / 1000)) }, state,
  redis.call('ZRANGE', KEYS[3], 0, -1) }

-- How Redis notices that it may have forgotten something (protocol/window: Marker). A prelude of other scripts.
--
-- The marker is a hash: generation (random, 16 hex digits), replid (the master_replid under which it was written), since
-- (Redis TIME in ms when it was written), settled (the generation whose settling is over, whatever the clock does), alive (when it was
-- last looked at, in ms) and lacks (how much time may be lacking from what is written here, in ms).
local SETTLING_MS = 5000

-- A whole number below 2^53 as text; tostring() would write 1.7e+12.
local function whole(number)
  return string.format('%d', number)
end

local function unix_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- What may be lacking once a generation ends: all since somebody last looked.
local function lacking(key, now)
  local past = redis.call('HMGET', key, 'lacks', 'alive', 'since')
  local alive = tonumber(past[2] or past[3] or '') or now
  return whole(tonumber(past[1] or '0') + math.abs(now - alive))
end

-- Adopts the marker as it stands; begins another one where there is none or where the server is another.
-- Returns the generation, what is left of its settling in ms, and what the server says about its replicas.
local function observe(key, fresh, now)
  local info = redis.call('INFO', 'replication')
  -- Found as plain text: a pattern is tried at each of its 600 characters, and costs more than the rest of this.
  local _, colon = string.find(info, 'master_replid:', 1, true)
  local replid = string.sub(info, colon + 1, colon + 40)
  local marker = redis.call('HMGET', key, 'generation', 'replid', 'since', 'settled')
  local generation, since, settled = marker[1], tonumber(marker[3] or ''), marker[4]
  if not generation or not since or marker[2] ~= replid then
    generation, since = fresh, now
    redis.call('HSET', key, 'generation', generation, 'replid', replid, 'since', whole(since), 'lacks', lacking(key, now),
      'alive', whole(now))
  end
  if settled == generation then
    return generation, 0, info
  end
  if now < since then
    -- A clock that was set back begins the settling anew, rather than drawing it out for hours.
    since = now
    redis.call('HSET', key, 'since', whole(since))
  end
  local left = SETTLING_MS - (now - since)
  if left <= 0 then
    redis.call('HSET', key, 'settled', generation)
    left = 0
  end
  return generation, left, info
end

-- What a script looks at first: the time, and whether the store has forgotten something (`Instance::look`).
-- KEYS[4]: the marker. ARGV[1]: the name of a new generation, should one begin.

local SETTLING_MS = 5000

local now, generation, since
do
  local time = redis.call('TIME')
  now = time[1] * 1000 + floor(time[2] / 1000)
end

-- Writes a marker: from now on nothing is drawn until everybody could report.
local function distrust(replid)
  generation, since = ARGV[1], now
  redis.call('HSET', KEYS[4], 'generation', generation, 'replid', replid, 'since', number(now))
end

local replid
do
  local info = redis.pcall('INFO', 'replication')
  replid = type(info) == 'string' and match(info, 'master_replid:(%x+)')
  if not replid then
    return redis.error_reply('NOINFO the Redis user of numgen must be allowed INFO (ACL SETUSER <user> +info): '
      .. 'without master_replid a restart that loses numbers cannot be told')
  end
  local marker = redis.call('HMGET', KEYS[4], 'generation', 'replid', 'since')
  if marker[1] and marker[2] == replid and marker[3] then
    generation, since = marker[1], tonumber(marker[3])
  else
    distrust(replid)
  end
end

local function settled()
  return math.abs(now - since) >= SETTLING_MS
end

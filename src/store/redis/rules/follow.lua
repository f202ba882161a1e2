-- What is new in the register, a bounded part of it.
-- ARGV[2] generation and [3] change up to which the caller has followed   [4] at most so many records
-- [5] at most so many rules of prefix_configs looked at   [6] in how many ms all of them are to be looked at once
-- Answers generation, 'same' or 'new' (then the records begin with the first), change, 'more' or 'all', 'restored' or '',
-- records as name and record, direct writes as name, token and text.
--
-- Operators' writes count no change. So whoever asks looks at the next few rules: all callers together go round once in ARGV[6],
-- however many they are. A rule that was added or taken out is found at once, since then the number of rules is not as it was.
local SHOWN, LONGEST = 200, 16384
local limit, slice, round_ms = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local generation = bless()
local lineage, change = 'new', 0
if generation == ARGV[2] then lineage, change = 'same', tonumber(ARGV[3]) end
local more, restored = 'all', ''

local found = {}
local changed = redis.call('ZRANGEBYSCORE', changes, '(' .. string.format('%.0f', change), '+inf', 'WITHSCORES', 'LIMIT', 0, limit)
if #changed > 0 then
  local names = {}
  for i = 1, #changed, 2 do names[#names + 1] = changed[i] end
  change = tonumber(changed[#changed])
  local values = redis.call('HMGET', records, unpack(names))
  for i, name in ipairs(names) do
    found[#found + 1] = name
    found[#found + 1] = values[i]
  end
  if #names == limit then more = 'more' end
end

-- Whether a text is the rule of a record: by comparison alone, since nearly all are.
local function shows(text, record)
  return record and string.sub(record, 1, #text) == text and string.byte(record, #text + 1) == 10
end

local function note(name) redis.call('SADD', direct, name) end

-- Goes through the records from where the last call stopped.
local function walk_records(visit)
  local cursor = redis.call('HGET', state, 'lost_cursor') or '0'
  local part = redis.call('HSCAN', records, cursor, 'COUNT', slice)
  redis.call('HSET', state, 'lost_cursor', part[1])
  for i = 1, #part[2], 2 do
    local rule = rule_of(part[2][i + 1])
    if rule then visit(part[2][i], rule) end
  end
  return part[1] == '0'
end

-- Looks at the rules that operators can write, from where the last call stopped.
local function sweep(size)
  local known = redis.call('HMGET', state, 'swept_ms', 'cursor')
  local swept_ms, cursor = tonumber(known[1]) or 0, known[2] or '0'
  local waited_ms = now_ms - swept_ms
  if waited_ms < 0 then waited_ms = round_ms end
  if size <= slice and waited_ms < round_ms / 3 then return end
  local due = math.min(size, math.floor(size * waited_ms / round_ms))
  local count = size <= slice and slice or math.min(slice, due)
  if count < 1 then return end
  local part = redis.call('HSCAN', mirror, cursor, 'COUNT', count)
  local left = size <= slice and 0 or due - count
  redis.call('HSET', state, 'cursor', part[1], 'swept_ms', string.format('%.0f', now_ms - left * round_ms / size))
  if left >= slice then more = 'more' end
  local pairs_, names = part[2], {}
  for i = 1, #pairs_, 2 do names[#names + 1] = pairs_[i] end
  for first = 1, #names, 1000 do
    local last = math.min(first + 999, #names)
    local values = redis.call('HMGET', records, unpack(names, first, last))
    for i = first, last do
      if not shows(pairs_[2 * i], values[i - first + 1]) then note(names[i]) end
    end
  end
end

if more == 'all' then
  local size, live = redis.call('HLEN', mirror), tonumber(redis.call('HGET', state, 'live') or '0')
  if size == 0 and live > 1 then
    -- Taking out the last rule leaves no hash either; but several at once, that was DEL.
    redis.call('HSET', state, 'restoring', '1', 'lost_cursor', '0')
  end
  if redis.call('HGET', state, 'restoring') then
    if walk_records(function(name, rule) redis.call('HSETNX', mirror, name, rule) end) then
      redis.call('HDEL', state, 'restoring')
      restored = 'restored'
    end
    more = 'more'
  elseif size > 0 then
    sweep(size)
  end
end

local written, expected = {}, tonumber(redis.call('HGET', state, 'live') or '0')
for _, name in ipairs(redis.call('SRANDMEMBER', direct, SHOWN)) do
  local token, text = direct_write(name, redis.call('HGET', records, name))
  if not token then
    redis.call('SREM', direct, name)
  else
    written[#written + 1] = name
    written[#written + 1] = token
    written[#written + 1] = text and string.sub(text, 1, LONGEST)
    local has_rule = rule_of(redis.call('HGET', records, name))
    expected = expected + (text and 1 or 0) - (has_rule and 1 or 0)
  end
end
if more == 'all' and redis.call('SCARD', direct) < SHOWN then
  local size = redis.call('HLEN', mirror)
  if size < expected then
    walk_records(function(name) if redis.call('HEXISTS', mirror, name) == 0 then note(name) end end)
    more = 'more'
  elseif size > expected then
    -- A new one: go round at once, not when it is due.
    redis.call('HSET', state, 'swept_ms', 0)
    more = 'more'
  end
end
return { generation, lineage, string.format('%.0f', change), more, restored, found, written }

-- What is new in the register, a bounded part of it.
-- ARGV[2] generation and [3] change up to which the caller has followed   [4] at most so many records
-- [5] at most so many rules of prefix_configs looked at   [6] in how many ms all of them are to be looked at once
-- [7] whether others have written to prefix_configs since the caller asked last: 'something', 'nothing', or 'unknown'
-- Answers generation, 'same' or 'new' (then the records begin with the first), change, what there is to ask for ('records' or
-- 'writes' at once, 'later' soon, 'all' was said), 'restored' or '', records as name and record, direct writes as name, token and text.
--
-- Operators' writes count no change. So where somebody has written, or a caller cannot know, all rules are compared with their
-- records: a round, of which each call does the part that is due. All callers together take ARGV[6] for it, however many they are.
-- While no round is under way there is no swept_ms. A rule that was added or taken out is found at once, since then the
-- number of rules is not as it was.
local SHOWN, LONGEST = 200, 16384
local limit, slice, round_ms, writes = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6]), ARGV[7]
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
  if #names == limit then more = 'records' end
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

-- Looks at the rules that operators can write, from where the last call stopped; begins anew where there is a reason to.
local function sweep(size)
  local known = redis.call('HMGET', state, 'swept_ms', 'cursor', 'ended_ms')
  local swept_ms, cursor, ended_ms = tonumber(known[1]), known[2] or '0', tonumber(known[3]) or 0
  if not swept_ms then
    local rested = now_ms < ended_ms or now_ms - ended_ms >= round_ms
    if writes == 'nothing' or (writes == 'unknown' and not rested) then return end
    swept_ms, cursor = now_ms - math.ceil(slice * round_ms / size), '0'
  elseif writes == 'something' then
    -- It may have been in the part that is behind.
    redis.call('HSET', state, 'again', '1')
  end
  local waited_ms = now_ms - swept_ms
  if waited_ms < 0 then waited_ms = round_ms end
  local due = math.min(size, math.floor(size * waited_ms / round_ms))
  local count = size <= slice and slice or math.min(slice, due)
  more = 'later'
  if count < 1 then return end
  local part = redis.call('HSCAN', mirror, cursor, 'COUNT', count)
  local left = size <= slice and 0 or due - count
  if part[1] ~= '0' then
    redis.call('HSET', state, 'cursor', part[1], 'swept_ms', whole(now_ms - left * round_ms / size))
    if left >= slice or size <= slice then more = 'writes' end
  elseif redis.call('HDEL', state, 'again') == 1 then
    redis.call('HSET', state, 'cursor', '0', 'swept_ms', whole(now_ms))
  else
    redis.call('HDEL', state, 'swept_ms')
    redis.call('HSET', state, 'cursor', '0', 'ended_ms', whole(now_ms))
    more = 'all'
  end
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
    more = 'writes'
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
if (more == 'all' or more == 'later') and redis.call('SCARD', direct) < SHOWN then
  local size = redis.call('HLEN', mirror)
  if size < expected then
    walk_records(function(name) if redis.call('HEXISTS', mirror, name) == 0 then note(name) end end)
    more = 'writes'
  elseif size > expected then
    -- A new one: go round at once, not when it is due.
    redis.call('HSET', state, 'swept_ms', '0')
    more = 'writes'
  end
end
return { generation, lineage, string.format('%.0f', change), more, restored, found, written }

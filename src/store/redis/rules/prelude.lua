-- What every script of the register begins with. Follows marker.lua.
-- KEYS[1] marker   [2] prefix_configs: prefix key -> rule, which operators read and write   [3] records: prefix key -> record
-- [4] changes: prefix keys by the change that touched them last   [5] state: change, live, swept_ms, cursor, again, ended_ms, lost_cursor, restoring
-- [6] direct: names under which prefix_configs holds something else than the rule of the record
-- ARGV[1] a new random generation, for a marker that is not blessed
-- A record has three lines: the rule (empty while deleted), revision and use, the history.
local marker, mirror, records, changes, state, direct = unpack(KEYS)
local now_ms = unix_ms()

-- The generation in force, and for how long it still settles.
local function bless()
  return observe(marker, ARGV[1], now_ms)
end

-- The rule of a record as prefix_configs should show it; false while there is none.
local function rule_of(record)
  local rule = record and string.match(record, '^[^\n]*')
  return rule and rule ~= '' and rule
end

-- Revision and use.
local function state_of(record)
  return record and string.match(record, '^[^\n]*\n([^\n]*)') or ''
end

-- Names what an operator wrote, or took out ('-'); false where nobody did.
local function direct_write(name, record)
  local text = redis.call('HGET', mirror, name)
  if text == rule_of(record) then return false, text end
  return text and redis.sha1hex(text) or '-', text
end

local function touch(name)
  redis.call('ZADD', changes, redis.call('HINCRBY', state, 'change', 1), name)
end

local function put(name, before, record)
  redis.call('HSET', records, name, record)
  local live = (rule_of(record) and 1 or 0) - (rule_of(before) and 1 or 0)
  if live ~= 0 then redis.call('HINCRBY', state, 'live', live) end
  touch(name)
end

local function show(name, record)
  local rule = rule_of(record)
  if rule then redis.call('HSET', mirror, name, rule) else redis.call('HDEL', mirror, name) end
  redis.call('SREM', direct, name)
end

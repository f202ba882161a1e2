-- The counter, as in `protocol/counter/authority/`: the same names, the same order. Ranges are {from, to}.

local GRACE_MS, DIGITS = 2000, 20

local function overlap(a, b)
  local from, to = a[1] > b[1] and a[1] or b[1], a[2] < b[2] and a[2] or b[2]
  return from <= to and { from, to } or nil
end

-- Takes a range out of a list of ranges.
local function without(ranges, range)
  local rest = {}
  for _, part in ipairs(ranges) do
    if not overlap(part, range) then
      rest[#rest + 1] = part
    else
      if part[1] < range[1] then
        rest[#rest + 1] = { part[1], before(range[1]) }
      end
      if range[2] < part[2] then
        rest[#rest + 1] = { plus(range[2], 1), part[2] }
      end
    end
  end
  return rest
end

-- Adds a range to a list of ascending ranges that do not touch.
local function with(ranges, range)
  local from, to, rest = range[1], range[2], {}
  for _, part in ipairs(ranges) do
    local after, next = plus(part[2], 1), plus(to, 1)
    if after and after < from or next and next < part[1] then
      rest[#rest + 1] = part
    else
      from, to = part[1] < from and part[1] or from, part[2] > to and part[2] or to
    end
  end
  rest[#rest + 1] = { from, to }
  table.sort(rest, function(a, b) return a[1] < b[1] end)
  return rest
end

local function write_ranges(ranges)
  local texts = {}
  for i, range in ipairs(ranges) do
    texts[i] = range[1] .. range[2]
  end
  return table.concat(texts)
end

local function read_ranges(text)
  local ranges = {}
  for i = 1, #text, 2 * DIGITS do
    ranges[#ranges + 1] = { sub(text, i, i + DIGITS - 1), sub(text, i + DIGITS, i + 2 * DIGITS - 1) }
  end
  return ranges
end

local function read_range(text)
  return text ~= '-' and text ~= '' and { sub(text, 1, DIGITS), sub(text, DIGITS + 1) } or nil
end

local function write_range(range)
  return range and range[1] .. range[2] or '-'
end

local function same(a, b)
  return a ~= nil and b ~= nil and a[1] == b[1] and a[2] == b[2]
end

local function read_ids(text)
  local ids = {}
  for id in string.gmatch(text, '%x%x%x%x%x%x%x%x%x%x%x%x%x%x%x%x%x%x%x%x%x%x%x%x%x%x%x%x%x%x%x%x') do
    ids[#ids + 1] = id
  end
  return ids
end

local function sorted(set)
  local keys = {}
  for key in pairs(set) do
    keys[#keys + 1] = key
  end
  table.sort(keys)
  return keys
end

-- ------------------------------------------------------------------------------------------- what is stored

local counter
-- The fields of the state as they were found.
local found = {}

local function read_member(text)
  local call, beat, next_beat, held, offered, by, drawn, node =
    match(text, '^(%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (.*)$')
  return {
    call = tonumber(call), beat = tonumber(beat), next_beat = tonumber(next_beat), held = read_range(held),
    offered = read_range(offered), by = tonumber(by), drawn = drawn == '-' and '' or drawn, node = node,
  }
end

local function write_member(member)
  return table.concat({
    number(member.call), number(member.beat), number(member.next_beat), write_range(member.held),
    write_range(member.offered), member.offered and number(member.by) or '-',
    member.drawn == '' and '-' or member.drawn, member.node,
  }, ' ')
end

local function read_recovery(text)
  local of, highest, known, reported = match(text, '^(%S+) (%S+) (%S+) (%S+)$')
  local recovery = { generation = of, highest = highest, known = {}, reported = {} }
  for _, id in ipairs(read_ids(known)) do recovery.known[id] = true end
  for _, id in ipairs(read_ids(reported)) do recovery.reported[id] = true end
  return recovery
end

local function write_recovery(recovery)
  local known, reported = table.concat(sorted(recovery.known)), table.concat(sorted(recovery.reported))
  return table.concat({ recovery.generation, recovery.highest, known == '' and '-' or known,
    reported == '' and '-' or reported }, ' ')
end

-- Where the last segment ends: the horizon of a counter that was written by an earlier version.
local function furthest()
  local last = ZERO
  for _, member in pairs(counter.members) do
    for _, segment in ipairs({ member.held or member.offered, member.offered }) do
      last = later(last, segment[2])
    end
  end
  return last
end

-- Reads the counter, if there is one; answers an error where it cannot be understood.
local function load()
  local fields = redis.call('HGETALL', KEYS[2])
  for i = 1, #fields, 2 do
    found[fields[i]] = fields[i + 1]
  end
  if not found.core then
    return nil
  end
  counter = { members = {}, ahead = {} }
  local second, drawn, peak, clear, scheme
  counter.origin, counter.base, counter.cursor, counter.generation, clear, counter.target, second, drawn, peak, scheme =
    match(found.core, '^(%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+)$')
  if not scheme then
    return redis.error_reply('CORRUPT the state of a counter cannot be read: ' .. KEYS[2])
  end
  counter.second, counter.drawn, counter.peak = tonumber(second), tonumber(drawn), tonumber(peak)
  counter.scheme = tonumber(scheme)
  for field, text in pairs(found) do
    if #field == 32 then
      counter.members[field] = read_member(text)
    end
  end
  if found.ahead then
    for range, kind, node in string.gmatch(found.ahead, '(%d+)([au])([^\n]*)\n') do
      counter.ahead[#counter.ahead + 1] =
        { range = read_range(range), abandoned = kind == 'a', node = node }
    end
  end
  counter.returned = read_ranges(found.returned or '')
  counter.recovery = found.recovery and read_recovery(found.recovery)
  counter.horizon = found.horizon or furthest()
  return nil
end

-- Members in the order of their names; made anew when one comes or goes.
local order
local function members()
  order = order or sorted(counter.members)
  return order
end

-- What is reserved for a member.
local function segments(member)
  if member.held and member.offered then
    return { member.held, member.offered }
  end
  return { member.held or member.offered }
end

local function is_alive(member)
  return math.abs(now - member.beat) <= member.next_beat + GRACE_MS
end

-- ----------------------------------------------------------------------------------------------- holes
-- A sorted set whose scores are all 0: its members sort as text, by `from`. They do not overlap.

local function read_hole(text)
  local reason, at, holder = match(sub(text, 2 * DIGITS + 1), '^(%S+) (%S+) (%S+)$')
  return { range = { sub(text, 1, DIGITS), sub(text, DIGITS + 1, 2 * DIGITS) }, reason = reason, since = at,
    holder = holder, text = text }
end

local function put_hole(range, reason, at, holder)
  redis.call('ZADD', KEYS[3], '0', range[1] .. range[2] .. reason .. ' ' .. at .. ' ' .. holder)
end

local function remove_hole(hole)
  redis.call('ZREM', KEYS[3], hole.text)
end

-- The holes that share something with a range.
local function holes_in(range)
  local holes = {}
  local first = redis.call('ZREVRANGEBYLEX', KEYS[3], '[' .. range[1] .. '~', '-', 'LIMIT', '0', '1')[1]
  if first and sub(first, DIGITS + 1, 2 * DIGITS) >= range[1] then
    holes[1] = read_hole(first)
  end
  if range[1] < range[2] then
    for _, text in ipairs(redis.call('ZRANGEBYLEX', KEYS[3], '(' .. range[1] .. '~', '[' .. range[2] .. '~')) do
      holes[#holes + 1] = read_hole(text)
    end
  end
  return holes
end

-- Lists a hole; merges it with those beside it that are alike, as old as the first of them.
local function list(range, reason, at, holder)
  local from, to, next = range[1], range[2], plus(range[2], 1)
  local above = next and holes_in({ next, next })[1]
  if above and above.range[1] == next and above.reason == reason and above.holder == holder then
    remove_hole(above)
    to = above.range[2]
  end
  local last = from > ZERO and before(from)
  local below = last and holes_in({ last, last })[1]
  if below and below.range[2] == last and below.reason == reason and below.holder == holder then
    remove_hole(below)
    from, at = below.range[1], below.since
  end
  put_hole({ from, to }, reason, at, holder)
end

-- Takes values off the list: they were issued after all.
local function unlist(range)
  for _, hole in ipairs(holes_in(range)) do
    remove_hole(hole)
    for _, rest in ipairs(without({ hole.range }, range)) do
      put_hole(rest, hole.reason, hole.since, hole.holder)
    end
  end
end

-- What of a range is on no list yet.
local function unlisted(range)
  local rest = { range }
  for _, hole in ipairs(holes_in(range)) do
    rest = without(rest, hole.range)
  end
  return rest
end

local function relabel(hole, reason)
  remove_hole(hole)
  put_hole(hole.range, reason, hole.since, '-')
end

-- ----------------------------------------------------------------------------------------------- segments

-- What becomes of that which was passed of a member's segment and is given back: issued to nobody. Unless the member was not served
-- since the store has forgotten: the segment is one that it may have swapped in the time that was lost.
local function leftover(member)
  return (counter.recovery or member.call == 0) and 'unconfirmed' or 'returned'
end

-- What was passed of a segment that nobody holds any more is nobody's.
local function give_back(segment, id, reason)
  for _, hole in ipairs(holes_in(segment)) do
    if hole.holder == id then
      relabel(hole, reason)
    end
  end
end

-- A segment that this store had forgotten, or that another process has left behind: what was passed of it is pending. Not what
-- may have been issued: a message of a process that is gone, arriving late, must not have it listed as returned.
local function adopt(segment, id)
  for _, hole in ipairs(holes_in(segment)) do
    if hole.reason == 'skipped' or hole.reason == 'returned' then
      local part = overlap(hole.range, segment)
      unlist(part)
      list(part, 'pending', hole.since, id)
    end
  end
end

-- Reserves these segments for a member, and no others.
local function reserve(id, held, offered, by)
  local member = counter.members[id]
  local old = segments(member)
  member.held, member.offered, member.by = held, offered, by
  local new = segments(member)
  for _, segment in ipairs(new) do
    counter.horizon = later(counter.horizon, segment[2])
  end
  for _, segment in ipairs(old) do
    if not same(segment, new[1]) and not same(segment, new[2]) then
      give_back(segment, id, leftover(member))
    end
  end
  for _, segment in ipairs(new) do
    if not same(segment, old[1]) and not same(segment, old[2]) then
      adopt(segment, id)
    end
  end
end

-- The first thing that is in the way at or above a value, and whose segment it is.
local function obstacle_from(value)
  local nearest, range, holder = NOWHERE, nil, nil
  local function look(candidate, id)
    if candidate[2] >= value and later(candidate[1], value) < nearest then
      nearest, range, holder = later(candidate[1], value), candidate, id
    end
  end
  -- What was used of a segment lies ahead too, and is seen first.
  for _, ahead in ipairs(counter.ahead) do
    look(ahead.range, nil)
  end
  for _, returned in ipairs(counter.returned) do
    look(returned, nil)
  end
  for _, id in ipairs(members()) do
    for _, segment in ipairs(segments(counter.members[id])) do
      look(segment, id)
    end
  end
  return range, holder
end

local function sort_ahead()
  -- Ranges ahead do not overlap, so that no two begin alike.
  table.sort(counter.ahead, function(a, b) return a.range[1] < b.range[1] end)
end

-- What of a range is not known to be ahead.
local function not_ahead(range)
  local rest = { range }
  for _, ahead in ipairs(counter.ahead) do
    rest = without(rest, ahead.range)
  end
  return rest
end

-- ----------------------------------------------------------------------------------------------- the cursor

local function is_untouched()
  return counter.cursor == counter.base and #counter.ahead == 0
end

-- Nobody has had to do with it yet but to fence it.
local function is_blank()
  return counter.base == counter.origin and is_untouched() and #members() == 0 and not counter.recovery
end

-- A counter from which nothing was issued begins above its floor; nothing is skipped then.
local function begin_above(value)
  if is_untouched() and value > counter.base then
    counter.base, counter.cursor = value, value
  end
end

local function list_passed(part, reason)
  local rest, listed = { part }, {}
  for _, ahead in ipairs(counter.ahead) do
    local known = overlap(ahead.range, part)
    if known then
      rest = without(rest, known)
      if ahead.abandoned then
        listed[#listed + 1] = { known, 'abandoned', '-' }
      end
    end
  end
  for _, id in ipairs(members()) do
    for _, segment in ipairs(segments(counter.members[id])) do
      for _, free in ipairs(rest) do
        local held = overlap(free, segment)
        if held then
          listed[#listed + 1] = { held, 'pending', id }
        end
      end
      rest = without(rest, segment)
    end
  end
  for _, range in ipairs(rest) do
    listed[#listed + 1] = { range, reason, '-' }
  end
  for _, hole in ipairs(listed) do
    list(hole[1], hole[2], number(now), hole[3])
  end
end

-- Lists what was handed back and has been passed.
local function list_returned()
  for _, range in ipairs(counter.returned) do
    local passed = overlap(range, { ZERO, counter.cursor })
    for _, part in ipairs(passed and unlisted(passed) or {}) do
      list(part, 'returned', number(now), '-')
    end
  end
  counter.returned = without(counter.returned, { ZERO, counter.cursor })
end

-- Moves the cursor, and lists what it passes that is not drawn.
local function pass_to(to, drawn, reason)
  if to <= counter.cursor then
    return
  end
  local missing = { { plus(counter.cursor, 1), to } }
  for _, known in ipairs({ drawn, counter.returned }) do
    for _, range in ipairs(known) do
      missing = without(missing, range)
    end
  end
  for _, part in ipairs(missing) do
    list_passed(part, reason)
  end
  counter.cursor = to
  local above, ahead = plus(to, 1), {}
  for _, known in ipairs(counter.ahead) do
    if known.range[2] > to then
      known.range[1] = later(known.range[1], above)
      ahead[#ahead + 1] = known
    end
  end
  counter.ahead = ahead
  list_returned()
end

local function peak()
  return math.max(counter.peak, counter.drawn)
end

-- How far ahead segments lie: a node that beats swaps long before the cursor has come.
local function distance(size, count)
  return math.max(2 * size, 3 * peak(), 2 * count)
end

-- ----------------------------------------------------------------------------------------------- writing

-- Writes what has changed.
local function save()
  local set, del = {}, {}
  local function write(field, text)
    if text ~= found[field] then
      if text then
        set[#set + 1] = field
        set[#set + 1] = text
      else
        del[#del + 1] = field
      end
    end
  end
  local next, clear = plus(counter.cursor, 1), NOWHERE
  local obstacle = next and obstacle_from(next)
  if obstacle then
    clear = later(obstacle[1], next)
  end
  write('core', table.concat({ counter.origin, counter.base, counter.cursor, counter.generation, clear,
    counter.target, number(counter.second), number(counter.drawn), number(counter.peak), number(counter.scheme) }, ' '))
  local ahead = {}
  for i, known in ipairs(counter.ahead) do
    ahead[i] = known.range[1] .. known.range[2] .. (known.abandoned and 'a' or 'u') .. known.node .. '\n'
  end
  write('ahead', #ahead > 0 and table.concat(ahead) or nil)
  write('returned', #counter.returned > 0 and write_ranges(counter.returned) or nil)
  write('recovery', counter.recovery and write_recovery(counter.recovery) or nil)
  write('roster', table.concat(members()))
  write('horizon', counter.horizon)
  for id, member in pairs(counter.members) do
    write(id, write_member(member))
  end
  for field in pairs(found) do
    if #field == 32 and not counter.members[field] then
      del[#del + 1] = field
    end
  end
  if #set > 0 then
    redis.call('HSET', KEYS[2], unpack(set))
  end
  if #del > 0 then
    redis.call('HDEL', KEYS[2], unpack(del))
  end
  redis.call('SET', KEYS[1], difference(counter.cursor, counter.origin))
end

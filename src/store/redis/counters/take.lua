-- `Authority::serve`.

local function remembers()
  return seen ~= '' or holds or #used > 0
end

local unreadable = load()
if unreadable then
  return unreadable
end
-- What was only fenced begins where whoever asks first says.
local fence = 0
if counter and is_blank() then
  fence, counter = counter.scheme, nil
end
-- What a node remembers of another generation is no sign: it may come from a store that took over from this one.
local forgotten = spoken == '!' .. generation
if spoken == generation then
  if counter then
    forgotten = counter.generation == generation and seen > counter.cursor
  else
    -- Whoever remembers a counter that is not there remembers one that was lost.
    forgotten = settled() and remembers()
  end
end
if forgotten then
  distrust()
end
local speaks_of_it = spoken == generation
if not counter and settled() and not speaks_of_it then
  return { 'recover', generation, '0' }
end
if not counter then
  counter = { origin = limits.base, base = limits.base, cursor = limits.base, generation = '-',
    scheme = fence, target = ZERO, horizon = ZERO, second = 0, drawn = 0, peak = 0, members = {}, ahead = {}, returned = {} }
  if settled() then
    counter.base = later(limits.base, limits.floor)
    counter.cursor, counter.generation = counter.base, generation
  end
end

counter.scheme = math.max(counter.scheme, scheme)

local function recover(wait_ms)
  save()
  return { 'recover', generation, number(wait_ms) }
end

if counter.generation ~= generation then
  hear_report(speaks_of_it)
  if not settled() then
    return recover(settling_ms)
  end
  resume()
end
if not speaks_of_it then
  return recover(0)
end
if counter.members[me] and call < counter.members[me].call then
  save()
  return { 'stale' }
end

retire()
note_used()
note_surplus()
note_beat()
if leaves then
  -- The registration stays until it lapses, so that a late repetition is known.
  reserve(me, nil, nil, nil)
end
local answers, outcome, of = draw_once()
local segment
if not leaves then
  segment = place()
end
if count == 0 and #ARGV == 21 then
  forget_lapsed()
end
save()
if outcome == 'blocked' then
  redis.call('PUBLISH', 'numgen:swap', sub(KEYS[1], #'sequence:' + 1))
end
return { 'taken', generation, outcome, of, counter.cursor, segment and write_range(segment) or '',
  table.concat(members()), counter.horizon, number(peak()), unpack(answers) }

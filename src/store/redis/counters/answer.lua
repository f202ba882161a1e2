-- How a message changes the counter, as `Authority::answer` and `recovery.rs` have it.

local LEAST_SKIP, SEGMENT_SIZE = 10000, 1000

local me, node = ARGV[2], ARGV[3]
local spoken, call, count = ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6])
local limits = { base = ARGV[7], floor = ARGV[8], max = ARGV[9] }
local seen, holds = ARGV[10], read_range(ARGV[11])
local used, surplus, size = read_ranges(ARGV[12]), read_ranges(ARGV[13]), tonumber(ARGV[14])
local retires, covers, peers = read_ids(ARGV[15]), read_ids(ARGV[16]), read_ids(ARGV[17])
local next_beat, leaves, scheme, horizon = tonumber(ARGV[18]), ARGV[19] == '1', tonumber(ARGV[20]), ARGV[21]

local function introduce()
  if not counter.members[me] then
    counter.members[me] = { call = 0, beat = 0, next_beat = 0, drawn = '', node = node }
    order = nil
  end
  local member = counter.members[me]
  member.beat, member.next_beat = now, next_beat
  return member
end

-- ----------------------------------------------------------------------------------------------- reports

-- What was issued from segments: no hole below the cursor, an obstacle above.
local function note_used()
  for _, range in ipairs(used) do
    unlist(range)
    local next = plus(counter.cursor, 1)
    local above = next and overlap(range, { next, MAX })
    if above then
      local unknown = not_ahead(above)
      -- An operator may have given up what the node had used all the same.
      for _, ahead in ipairs(counter.ahead) do
        if ahead.abandoned and same(overlap(ahead.range, above), ahead.range) then
          ahead.abandoned = false
        end
      end
      for _, part in ipairs(unknown) do
        counter.ahead[#counter.ahead + 1] = { range = part, node = node, abandoned = false }
      end
    end
  end
  sort_ahead()
end

-- What was drawn, or taken from a segment, and issued to nobody.
local function note_surplus()
  for _, range in ipairs(surplus) do
    counter.returned = with(counter.returned, range)
  end
  list_returned()
end

-- What it was answered last may have been passed on, or not.
local function list_unconfirmed(member)
  for _, range in ipairs(read_ranges(member.drawn)) do
    for _, part in ipairs(unlisted(range)) do
      list(part, 'unconfirmed', number(now), '-')
    end
  end
end

-- Takes a member off the registry.
local function strike(id)
  local member = counter.members[id]
  counter.members[id], order = nil, nil
  for _, segment in ipairs(segments(member)) do
    give_back(segment, id, leftover(member))
  end
  list_unconfirmed(member)
end

-- Processes that are gone: their segment is the successor's, or free.
local function retire()
  for _, gone in ipairs({ retires, covers }) do
    for _, id in ipairs(gone) do
      if counter.members[id] then
        strike(id)
      end
    end
  end
end

-- Forgets nodes that hold nothing and have not been heard of for long.
local function forget_lapsed()
  for _, id in ipairs(members()) do
    local member = counter.members[id]
    if id ~= me and not member.held and not member.offered and math.abs(now - member.beat) > LAPSE_MS then
      strike(id)
    end
  end
end

local function note_beat()
  local member = introduce()
  member.node = node
  local held, offered, by = holds, member.offered, member.by
  if offered and (same(holds, offered) or call > by) then
    -- It holds what it was offered; or the call by which it was offered is over, and it does not.
    offered, by = nil, nil
  end
  reserve(me, held, offered, by)
end

-- ----------------------------------------------------------------------------------------------- recovery

-- A node that follows this store's generation still, and is at a later call, has had the answer to the last one that was served.
local function note_answered()
  local member = counter.members[me]
  if member and spoken == counter.generation and call > member.call then
    member.drawn = ''
  end
end

-- Notes what a node knows. It counts as a report only where the node has adopted the generation; before, it is one more to be
-- waited for.
local function hear_report(speaks_of_it)
  if not counter.recovery or counter.recovery.generation ~= generation then
    counter.recovery = { generation = generation, highest = counter.cursor, known = {}, reported = {} }
    for id in pairs(counter.members) do
      counter.recovery.known[id] = true
    end
  end
  note_answered()
  local recovery = counter.recovery
  -- Who has not heard of any generation was never given anything.
  if spoken ~= '' then recovery.known[me] = true end
  for _, id in ipairs(peers) do recovery.known[id] = true end
  for _, id in ipairs(retires) do recovery.known[id] = true end
  -- Who has reported and speaks of another one has gone on to another store, whose numbers are none of this one's.
  if speaks_of_it or not recovery.reported[me] then
    recovery.highest = later(seen, recovery.highest)
    counter.horizon = later(counter.horizon, horizon)
  end
  if not speaks_of_it then
    return
  end
  recovery.reported[me] = true
  for _, id in ipairs(covers) do recovery.reported[id] = true end
  introduce()
  -- An offer of the earlier generation is in a reply that the node throws away.
  reserve(me, holds, nil, nil)
  note_used()
  note_surplus()
end

-- More than can be lost at once: what is drawn in the time that was lost, and what lay ahead. That time is not longer than what the
-- store lacks at all; a marker that does not say so is of an earlier version.
local function skip(nodes)
  local lacks = tonumber(redis.call('HGET', KEYS[4], 'lacks') or '9e15')
  local lost_s = math.min(math.abs(floor(now / 1000) - counter.second), floor(lacks / 1000)) + 1
  local segment = math.max(size or 0, SEGMENT_SIZE)
  return math.max(peak() * lost_s + distance(segment, 0) + 2 * segment * nodes, LEAST_SKIP)
end

-- How much further a skip goes, by lot: two skips from one place must not end together.
local function lot(name)
  return math.fmod(tonumber(sub(name, 4), 16), LEAST_SKIP)
end

-- Begins the generation: above everything that was reported, and above more than could have been lost where somebody is silent. That is
-- not cut off at the limit, which is one caller's: others may have drawn above it. But a limit of 0 is that of a node under grants.
local function resume()
  local recovery = counter.recovery
  counter.recovery = nil
  if recovery then
    local silent, nodes = 0, 0
    for id in pairs(recovery.known) do
      nodes = nodes + 1
      silent = silent + (recovery.reported[id] and 0 or 1)
    end
    for id in pairs(recovery.reported) do
      nodes = nodes + (recovery.known[id] and 0 or 1)
    end
    pass_to(later(recovery.highest, counter.base), {}, 'unconfirmed')
    if silent > 0 and limits.max > ZERO then
      -- Where the rate was lost with the counter, the horizon that others were told knows of it.
      local to = later(plus(counter.cursor, math.min(skip(nodes), 2 ^ 53)) or MAX, counter.horizon)
      pass_to(plus(to, lot(generation)) or MAX, {}, 'skipped')
    end
  end
  -- A store that came back after another one had stood in for it would answer an open call with what the other has given away.
  for _, id in ipairs(members()) do
    local member = counter.members[id]
    list_unconfirmed(member)
    member.call, member.drawn = 0, ''
  end
  counter.generation = generation
end

-- ----------------------------------------------------------------------------------------------- drawing

-- The next values, all or none; else why not.
local function draw(wanted)
  if wanted == 0 then
    return {}
  end
  if scheme < counter.scheme then
    return nil, 'superseded', ''
  end
  -- Where nothing was issued yet, the counter may still be told to begin elsewhere.
  local lowest = is_untouched() and later(limits.base, limits.floor) or limits.floor
  local at, left, drawn = later(counter.cursor, lowest), wanted, {}
  while left > 0 do
    local next = plus(at, 1)
    if not next or next > limits.max then
      return nil, 'overflow', number(wanted - left)
    end
    local obstacle, holder = obstacle_from(next)
    if obstacle and obstacle[1] <= next then
      if holder and (holder == me or is_alive(counter.members[holder])) then
        -- Its node may see no reason to swap it: what lies before it may be used, and be passed in one step.
        counter.target = later(counter.target, obstacle[2])
        return nil, 'blocked', holder
      end
      at = obstacle[2]
    else
      local free_until = limits.max
      if obstacle and obstacle[1] <= free_until then
        free_until = before(obstacle[1])
      end
      local taken = math.min(left, apart(free_until, at))
      at = plus(at, taken)
      drawn[#drawn + 1] = { next, at }
      left = left - taken
    end
  end
  begin_above(lowest)
  pass_to(at, drawn, 'skipped')
  local second = floor(now / 1000)
  if second ~= counter.second then
    counter.peak = math.max(counter.drawn, counter.peak - floor(counter.peak / 8))
    counter.second, counter.drawn = second, 0
  end
  counter.drawn = counter.drawn + wanted
  return drawn
end

-- Takes so many values off the front of what was drawn.
local function hand_out(drawn, wanted)
  local values = {}
  while wanted > 0 and drawn[1] do
    local range = drawn[1]
    local here = apart(range[2], range[1]) + 1
    if here > wanted then
      local to = plus(range[1], wanted - 1)
      values[#values + 1] = { range[1], to }
      range[1] = plus(to, 1)
      wanted = 0
    else
      values[#values + 1] = table.remove(drawn, 1)
      wanted = wanted - here
    end
  end
  return write_ranges(values)
end

local function read_claims()
  local claims = {}
  for i = 22, #ARGV, 7 do
    claims[#claims + 1] = {
      record = KEYS[5 + #claims], fingerprint = ARGV[i], stamp = ARGV[i + 1], count = tonumber(ARGV[i + 2]),
      turn = tonumber(ARGV[i + 3]), claimed_at = tonumber(ARGV[i + 4]), expires_at = ARGV[i + 5],
      lifetime = ARGV[i + 6],
    }
  end
  return claims
end

-- `D expires_at fingerprint values stamp`, or `V turn`: what a claim is answered that comes later.
local function recall(claim, record)
  if not record then
    return nil
  end
  local turn = match(record, '^V (%d+)$')
  if turn then
    return claim.turn <= tonumber(turn) and 'V' or nil
  end
  local expires_at, fingerprint, values, stamp = match(record, '^D (%S+) (%S*) (%d*) (.*)$')
  if not stamp or tonumber(expires_at) <= claim.claimed_at then
    return nil
  end
  return fingerprint == claim.fingerprint and 'R' .. values .. ':' .. stamp or 'M'
end

-- Draws for a new call; answers one that was served before from the record.
local function draw_once()
  local member = counter.members[me]
  local repeated = call == member.call
  local plain = repeated and 0 or count
  local claims, wanted, records = read_claims(), plain, {}
  for i, claim in ipairs(claims) do
    if records[claim.record] == nil then
      records[claim.record] = redis.call('GET', claim.record)
    end
    claim.answer = recall(claim, records[claim.record])
  end
  -- Two claims of one key in one call: the second is answered as if it came after the first.
  local first_of = {}
  for _, claim in ipairs(claims) do
    if not claim.answer and not first_of[claim.record] then
      first_of[claim.record], claim.fresh = true, true
      wanted = wanted + claim.count
    end
  end
  local drawn, failure, of = draw(wanted)
  local answers = {}
  if failure then
    if not repeated then
      member.call, member.drawn = call, ''
    end
    return answers, failure, of
  end
  local values = hand_out(drawn, plain)
  for i, claim in ipairs(claims) do
    if claim.fresh then
      local keyed = hand_out(drawn, claim.count)
      local record = 'D ' .. claim.expires_at .. ' ' .. claim.fingerprint .. ' ' .. keyed .. ' ' .. claim.stamp
      redis.call('SET', claim.record, record, 'PX', claim.lifetime)
      records[claim.record], claim.answer = record, 'F' .. keyed
    else
      claim.answer = claim.answer or recall(claim, records[claim.record])
    end
    answers[#answers + 1] = claim.answer
  end
  if repeated then
    values = member.drawn
  else
    member.call, member.drawn = call, values
  end
  return answers, 'drawn', values
end

-- ----------------------------------------------------------------------------------------------- the segment

-- The first free range of that size; a smaller one where the limit leaves no more.
local function room_from(from)
  while from and from <= limits.max do
    local to = plus(from, size - 1) or MAX
    to = to < limits.max and to or limits.max
    local obstacle = obstacle_from(from)
    if not obstacle or obstacle[1] > to then
      return { from, to }
    end
    from = plus(obstacle[2], 1)
  end
  return nil
end

-- The segment that the node is to hold from now on; reserved before it is told.
local function place()
  if not size or scheme < counter.scheme then
    return nil
  end
  local member = counter.members[me]
  -- What was offered is reserved until the node has answered, even if it does not suit any more.
  if member.offered then
    return member.offered
  end
  local ahead = distance(size, count)
  local at = later(counter.cursor, limits.floor)
  if member.held then
    local near = later(plus(at, floor(ahead / 2)) or MAX, counter.target)
    local suits = member.held[1] > near and member.held[2] <= limits.max
    for _, known in ipairs(counter.ahead) do
      suits = suits and not overlap(known.range, member.held)
    end
    if suits then
      return member.held
    end
  end
  local from = plus(later(plus(at, ahead) or MAX, counter.target), 1)
  local segment = from and room_from(from)
  if segment then
    counter.horizon = later(counter.horizon, segment[2])
    member.offered, member.by = segment, call
  end
  return segment
end

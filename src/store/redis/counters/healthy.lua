-- TAKE.
-- KEYS: the plain key, the state, the holes, the marker, then the record of each claim.
-- ARGV: 1 fresh generation, 2 incarnation, 3 node, 4 generation (or ! and the one that it distrusts), 5 call, 6 count, 7 base, 8 floor, 9 max,
-- 10 seen, 11 holds, 12 used, 13 surplus, 14 size of the segment it wants, 15 retires, 16 covers, 17 peers, 18 next beat, 19 leaves,
-- 20 scheme, 21 horizon; then for each claim: fingerprint, stamp, count, turn, claimed at, expires at, lifetime. What is absent is empty.

-- The path of a counter that is well and of a node that has nothing to tell: the values directly above the cursor. It does what
-- the rest of the script would do, without reading what is not needed for it. Where anything is unusual it leaves no trace.

local LAPSE_MS = 60000

-- What there is to draw: for requests without a key, and for keys that were never used; nil where a key may have been used.
local function wanted()
  local total, seen = tonumber(ARGV[6]), {}
  if #ARGV == 21 then
    return total
  end
  for i = 5, #KEYS do
    if seen[KEYS[i]] then
      return nil
    end
    seen[KEYS[i]] = true
    total = total + tonumber(ARGV[7 * i - 11])
  end
  return redis.call('EXISTS', unpack(KEYS, 5)) == 0 and total or nil
end

-- Draws for each claim from above a cursor, and records it.
local function draw_claims(answer, cursor)
  for i = 5, #KEYS do
    local at = 7 * i - 13
    local to = plus(cursor, tonumber(ARGV[at + 2]))
    local values = plus(cursor, 1) .. to
    redis.call('SET', KEYS[i], 'D ' .. ARGV[at + 5] .. ' ' .. ARGV[at] .. ' ' .. values .. ' ' .. ARGV[at + 1],
      'PX', ARGV[at + 6])
    answer[#answer + 1] = 'F' .. values
    cursor = to
  end
end

-- Whether a heartbeat finds a node that is to be forgotten.
local function somebody_lapsed(roster)
  local ids = {}
  for i = 1, #roster, 32 do
    ids[#ids + 1] = sub(roster, i, i + 31)
  end
  for i, member in ipairs(redis.call('HMGET', KEYS[2], unpack(ids))) do
    local beat = ids[i] ~= ARGV[2] and match(member, '^%S+ (%S+) %S+ %- %- ')
    if beat and math.abs(now - beat) > LAPSE_MS then
      return true
    end
  end
  return false
end

local function serve_healthy()
  local fields = { 'core', ARGV[2], 'roster', 'horizon', 'ahead', 'returned' }
  for i = 1, #ARGV[16], 32 do
    fields[#fields + 1] = sub(ARGV[16], i, i + 31)
  end
  local state = redis.call('HMGET', KEYS[2], unpack(fields))
  local core, member, roster, horizon = state[1], state[2], state[3], state[4]
  for i = 5, #fields do
    if state[i] then
      -- Something is issued ahead, or a process that is gone is to be struck off.
      return nil
    end
  end
  if not core or not member or not horizon then
    return nil
  end
  local origin, base, cursor, blessed, clear, target, second, drawn, peak, scheme =
    match(core, '^(%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+)$')
  local call, held, offered, name = match(member, '^(%S+) %S+ %S+ (%S+) (%S+) %S+ %S+ (.*)$')
  if blessed ~= generation or scheme ~= ARGV[20] or ARGV[10] > cursor or ARGV[8] > cursor or tonumber(ARGV[5]) <= tonumber(call) or offered ~= '-'
    or name ~= ARGV[3] or held ~= (ARGV[11] == '' and '-' or ARGV[11]) then
    return nil
  end
  local count = wanted()
  local to = count and plus(cursor, count)
  if not to then
    return nil
  end
  second, drawn, peak = tonumber(second), tonumber(drawn), tonumber(peak)
  if count > 0 then
    if to >= clear or to > ARGV[9] or base == cursor and ARGV[7] > cursor then
      return nil
    end
    local this_second = floor(now / 1000)
    if second ~= this_second then
      peak, second, drawn = math.max(drawn, peak - floor(peak / 8)), this_second, 0
    end
    drawn = drawn + count
  elseif somebody_lapsed(roster) then
    return nil
  end
  local plain = tonumber(ARGV[6])
  if ARGV[14] ~= '' then
    local distance = math.max(2 * tonumber(ARGV[14]), 3 * math.max(peak, drawn), 2 * plain)
    local near = later(plus(to, floor(distance / 2)) or MAX, target)
    if held == '-' or sub(held, 1, 20) <= near or sub(held, 21) > ARGV[9] then
      return nil
    end
  end
  local plain_to = plain == count and to or plus(cursor, plain)
  local values = plain > 0 and plus(cursor, 1) .. plain_to or ''
  redis.call('HSET', KEYS[2],
    'core', origin .. ' ' .. base .. ' ' .. to .. ' ' .. blessed .. ' ' .. clear .. ' ' .. target .. ' '
      .. number(second) .. ' ' .. number(drawn) .. ' ' .. number(peak) .. ' ' .. scheme,
    ARGV[2], ARGV[5] .. ' ' .. number(now) .. ' ' .. ARGV[18] .. ' ' .. held .. ' - - '
      .. (plain > 0 and values or '-') .. ' ' .. name)
  redis.call('SET', KEYS[1], difference(to, origin))
  local answer = { 'taken', generation, 'drawn', values, to, ARGV[14] == '' and '' or held, roster, horizon,
    number(math.max(peak, drawn)) }
  draw_claims(answer, plain_to)
  return answer
end

if ARGV[4] == generation and ARGV[12] == '' and ARGV[13] == '' and ARGV[15] == '' and ARGV[19] == ''
  and settled() then
  local answer = serve_healthy()
  if answer then
    return answer
  end
end

-- TAKE.
-- KEYS: the plain key, the state, the holes, the marker, then the record of each claim.
-- ARGV: 1 fresh generation, 2 incarnation, 3 node, 4 generation, 5 call, 6 count, 7 base, 8 floor, 9 max, 10 seen, 11 holds,
-- 12 used, 13 surplus, 14 size of the segment it wants, 15 retires, 16 covers, 17 peers, 18 next beat, 19 leaves; then for each
-- claim: fingerprint, stamp, count, turn, claimed at, expires at, lifetime. What is absent is empty.

-- The path of a counter that is well and of a node that has nothing to tell: the values directly above the cursor. It does what
-- the rest of the script would do, without reading what is not needed for it. Where anything is unusual it leaves no trace.
if ARGV[4] == generation and #ARGV == 19 and ARGV[6] ~= '0' and ARGV[12] == '' and ARGV[13] == ''
  and ARGV[15] == '' and ARGV[16] == '' and ARGV[19] == '' and settled() then
  local fields = redis.call('HMGET', KEYS[2], 'core', ARGV[2], 'roster', 'ahead')
  local core, member, roster = fields[1], fields[2], fields[3]
  if core and member and not fields[4] then
    local origin, base, cursor, blessed, clear, target, second, drawn, peak =
      match(core, '^(%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+)$')
    local call, held, offered, name = match(member, '^(%S+) %S+ %S+ (%S+) (%S+) %S+ %S+ (.*)$')
    local count = tonumber(ARGV[6])
    local to = blessed == generation and plus(cursor, count)
    if to and to < clear and to <= ARGV[9] and ARGV[10] <= cursor and ARGV[8] <= cursor
      and tonumber(ARGV[5]) > tonumber(call) and offered == '-' and name == ARGV[3]
      and held == (ARGV[11] == '' and '-' or ARGV[11]) then
      second, drawn, peak = tonumber(second), tonumber(drawn), tonumber(peak)
      local this_second = floor(now / 1000)
      if second ~= this_second then
        peak, second, drawn = math.max(drawn, peak - floor(peak / 8)), this_second, 0
      end
      drawn = drawn + count
      local well = ARGV[14] == ''
      if not well and held ~= '-' then
        local distance = math.max(2 * tonumber(ARGV[14]), 3 * math.max(peak, drawn), 2 * count)
        local near = later(plus(to, floor(distance / 2)) or MAX, target)
        well = sub(held, 1, 20) > near and sub(held, 21) <= ARGV[9]
      end
      if well then
        local values = plus(cursor, 1) .. to
        redis.call('HSET', KEYS[2],
          'core', origin .. ' ' .. base .. ' ' .. to .. ' ' .. blessed .. ' ' .. clear .. ' ' .. target .. ' '
            .. number(second) .. ' ' .. number(drawn) .. ' ' .. number(peak),
          ARGV[2], ARGV[5] .. ' ' .. number(now) .. ' ' .. ARGV[18] .. ' ' .. held .. ' - - ' .. values .. ' ' .. name)
        redis.call('SET', KEYS[1], difference(to, origin))
        return { 'taken', generation, 'drawn', values, to, ARGV[14] == '' and '' or ARGV[11], roster }
      end
    end
  end
end

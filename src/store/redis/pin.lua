-- Decides where the values of an idempotency key come from, before any are drawn.
-- KEYS: the pin. It holds `C turn counter` (drawn there, if anywhere) or `S expires_at fingerprint values stamp` (drawn elsewhere,
-- and these are the values).
-- ARGV: 1 the pin that was seen and is known to be void, or empty; 2 claimed at; 3 its lifetime in ms; 4 C or S, then
-- for C: 5 the counter, 6 the last turn that was answered with `Moved`, or 0;
-- for S: 5 what to keep, without the letter.

local pin = redis.call('GET', KEYS[1])
local turn, counter = string.match(pin or '', '^C (%d+) (.*)$')

if turn and pin ~= ARGV[1] then
  if ARGV[4] ~= 'C' or counter ~= ARGV[5] then
    return { 'elsewhere', pin, turn, counter }
  end
  if tonumber(turn) > tonumber(ARGV[6]) then
    -- As long as somebody comes back for it.
    redis.call('PEXPIRE', KEYS[1], math.max(redis.call('PTTL', KEYS[1]), tonumber(ARGV[3])))
    return { 'here', turn }
  end
elseif pin and not turn then
  local expires_at, fingerprint, values, stamp = string.match(pin, '^S (%S+) (%S*) (%S*) (.*)$')
  if not stamp then
    return redis.error_reply('CORRUPT an idempotency key cannot be read: ' .. KEYS[1])
  end
  if tonumber(expires_at) > tonumber(ARGV[2]) then
    return { 'recorded', fingerprint, values, stamp }
  end
end

if ARGV[4] == 'S' then
  redis.call('SET', KEYS[1], 'S ' .. ARGV[5], 'PX', ARGV[3])
  return { 'fresh' }
end
-- Above every turn before, also those of a pin that has expired meanwhile.
local time = redis.call('TIME')
local next = string.format('%.0f', math.max(time[1] * 1000000 + time[2], tonumber(turn or 0) + 1))
redis.call('SET', KEYS[1], 'C ' .. next .. ' ' .. ARGV[5], 'PX', ARGV[3])
return { 'here', next }

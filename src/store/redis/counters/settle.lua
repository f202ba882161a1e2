-- `Authority::settle`: what was drawn under a key; where nothing was, nothing will be up to that turn.
-- KEYS: the record. ARGV: 1 turn, 2 claimed at, 3 for how long this is remembered, in ms.

local record = redis.call('GET', KEYS[1])
local turn = tonumber(ARGV[1])
if record then
  local expires_at, fingerprint, values, stamp = string.match(record, '^D (%S+) (%S*) (%d*) (.*)$')
  if stamp and tonumber(expires_at) > tonumber(ARGV[2]) then
    return { 'drawn', fingerprint, stamp, values, expires_at }
  end
  turn = math.max(turn, tonumber(string.match(record, '^V (%d+)$') or 0))
end
redis.call('SET', KEYS[1], string.format('V %d', turn), 'PX', ARGV[3])
return { 'void' }

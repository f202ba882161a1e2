-- Adds an entry to the audit trail. The position is the server's clock in microseconds, and rises whatever that does.
-- KEYS[1] the trail
-- ARGV[1] how many entries are kept, about   [2] the entry
local time = redis.call('TIME')
local position = time[1] * 1000000 + time[2]
local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
if last then
    position = math.max(position, tonumber(string.match(last[1], '^%d+')) + 1)
end
return redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], string.format('%.0f-0', position), 'entry', ARGV[2])

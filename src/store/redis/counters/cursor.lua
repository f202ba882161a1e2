-- Where a counter stands: nothing where it is not there. KEYS: as take.lua.

local core = redis.call('HGET', KEYS[2], 'core')
return core and string.match(core, '^%S+ %S+ (%S+)') or ''

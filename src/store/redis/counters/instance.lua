-- What a script looks at first: the time, and whether the store has forgotten something (`Instance::look`). Follows marker.lua.
-- KEYS[4]: the marker. ARGV[1]: the name of a new generation, should one begin.

local now = unix_ms()
local generation, settling_ms = observe(KEYS[4], ARGV[1], now)

-- Something was forgotten though the marker was not: nothing is drawn until everybody could report.
local function distrust()
  generation, settling_ms = ARGV[1], SETTLING_MS
  redis.call('HSET', KEYS[4], 'generation', generation, 'since', number(now), 'lacks', lacking(KEYS[4], now), 'alive',
    number(now))
end

local function settled()
  return settling_ms == 0
end

-- Values: 0 to 2^64 - 1, as 20 digits, so that they compare as text. Numbers of Lua are exact below 2^53 only; how far two
-- values lie apart is such a number, and needs to be exact only where it is smaller than that.

local ZERO, MAX = '00000000000000000000', '18446744073709551615'
-- Above every value: where nothing is in the way.
local NOWHERE = '99999999999999999999'
local LIMB = 1e10
local floor, format, match, sub = math.floor, string.format, string.match, string.sub

-- value + n, for n from 0 to 2^53; nil above MAX.
local function plus(value, n)
  local low = tonumber(sub(value, 11)) + n
  if low < LIMB then
    local sum = sub(value, 1, 10) .. format('%010d', low)
    return sum <= MAX and sum or nil
  end
  -- fmod is exact where a division would round.
  local rest = math.fmod(low, LIMB)
  local sum = format('%010d%010d', tonumber(sub(value, 1, 10)) + (low - rest) / LIMB, rest)
  return sum <= MAX and sum or nil
end

-- The value before one that is not 0.
local function before(value)
  local high, low = tonumber(sub(value, 1, 10)), tonumber(sub(value, 11))
  if low > 0 then
    return format('%010d%010d', high, low - 1)
  end
  return format('%010d%010d', high - 1, LIMB - 1)
end

-- high - low, where high is not below low.
local function apart(high, low)
  return (tonumber(sub(high, 1, 10)) - tonumber(sub(low, 1, 10))) * LIMB
    + (tonumber(sub(high, 11)) - tonumber(sub(low, 11)))
end

-- The same exactly, as text, however far.
local function difference(high, low)
  local lower = tonumber(sub(high, 11)) - tonumber(sub(low, 11))
  if sub(high, 1, 10) == sub(low, 1, 10) then
    return format('%d', lower)
  end
  local upper = tonumber(sub(high, 1, 10)) - tonumber(sub(low, 1, 10))
  if lower < 0 then
    upper, lower = upper - 1, lower + LIMB
  end
  return upper > 0 and format('%d%010d', upper, lower) or format('%d', lower)
end

local function later(a, b)
  return a > b and a or b
end

local function number(n)
  return format('%d', n)
end

-- Worker slots (protocol/window: Slots). A prelude of acquire, renew and release.
--
-- KEYS[1] marker   KEYS[2] holdings: nonce -> slot, and 'followed': when replicas followed last   KEYS[3] slots: the key of slot 7 is this followed by 7
-- ARGV[1] a random generation, should another one begin   ARGV[2] the snowflake epoch in Unix ms
-- All times are milliseconds since the epoch, and all numbers below 2^53.
local MARGIN_MS = 60000
local CARRY_LIMIT_MS = 5000
local DESERTED_MS = 30000

local unix = unix_ms()
local now = math.max(unix - tonumber(ARGV[2]), 0)
local generation, settling, server = observe(KEYS[1], ARGV[1], unix)

-- How long this server, which no replica follows, is still in doubt: those that have left it may follow another one, or be it.
local is_followed, deserted = string.find(server, 'state=online', 1, true) ~= nil, 0
if is_followed then
  redis.call('HSET', KEYS[2], 'followed', generation .. ' ' .. whole(now))
else
  local memory, since = string.match(redis.call('HGET', KEYS[2], 'followed') or '', '^(%x+) (%d+)$')
  if memory == generation then
    -- A clock that was set back by hours does not draw it out for as long.
    deserted = math.max(DESERTED_MS - math.abs(now - tonumber(since)), 0)
  end
end

local function slot_key(number)
  return KEYS[3] .. number
end

local function read(number)
  local slot = redis.call('HMGET', slot_key(number), 'owner', 'fence', 'start', 'mark', 'expires', 'generation',
    'word', 'tenure')
  return {
    number = number,
    owner = slot[1] or '',
    fence = tonumber(slot[2] or 0),
    start = tonumber(slot[3] or 0),
    mark = tonumber(slot[4] or 0),
    expires = tonumber(slot[5] or 0),
    generation = slot[6] or '',
    word = slot[7] or 'own',
    tenure = slot[8] or 'lease',
    is_known = slot[2] ~= false,
  }
end

local function write(slot)
  redis.call('HSET', slot_key(slot.number), 'owner', slot.owner, 'fence', whole(slot.fence), 'start', whole(slot.start),
    'mark', whole(slot.mark), 'expires', whole(slot.expires), 'generation', slot.generation, 'word',
    slot.word, 'tenure', slot.tenure)
end

local function give_to(slot, nonce)
  if slot.owner ~= nonce then
    if slot.owner ~= '' then
      redis.call('HDEL', KEYS[2], slot.owner)
    end
    redis.call('HSET', KEYS[2], nonce, slot.number)
  end
  slot.owner = nonce
end

local function vacate(slot)
  redis.call('HDEL', KEYS[2], slot.owner)
  slot.owner, slot.expires = '', 0
end

-- How far above the mark a new holding begins: another server may have forgotten the end of a mark, and what was put back, perhaps
-- by a late request, is hearsay until its holder is heard again.
local function margin(slot)
  local is_in_doubt = slot.generation ~= generation or slot.word == 'hearsay'
  return slot.is_known and is_in_doubt and MARGIN_MS or 0
end

-- Whether it may pass on: nobody is known to hold it, and the clock has passed its mark. A slot that was held by an operator's word is not
-- leased, however long nobody renews: its holder goes on without this store.
local function is_free(slot, tenure)
  local is_reserved = slot.tenure == 'fixed' and tenure == 'lease'
  return not is_reserved and (slot.owner == '' or slot.expires <= now) and slot.mark + margin(slot) <= now
end

local function is_held_by(slot, nonce, fence)
  return slot.owner == nonce and slot.fence == fence
end

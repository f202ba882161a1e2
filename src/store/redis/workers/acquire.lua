-- ARGV[3] nonce   ARGV[4] first slot   ARGV[5] end of the slots   ARGV[6] window in ms   ARGV[7] ttl in ms
-- Answers {'held', slot, fence, start, mark, now, generation, 'followed' or 'alone'}, {'none'} or {'wait', ms}.
local nonce, window, ttl = ARGV[3], tonumber(ARGV[6]), tonumber(ARGV[7])

local function answer(slot)
  return { 'held', whole(slot.number), whole(slot.fence), whole(slot.start), whole(slot.mark), whole(now), generation,
    is_followed and 'followed' or 'alone' }
end

if settling > 0 or deserted > 0 then
  return { 'wait', whole(settling > 0 and settling or deserted) }
end
-- The same holding asked for again: its answer was lost, or came too late.
local known = redis.call('HGET', KEYS[2], nonce)
if known then
  local slot = read(tonumber(known))
  if slot.owner == nonce then
    -- So that to wait for a replica is to wait for all of this, whatever was written over this connection.
    write(slot)
    return answer(slot)
  end
end
for number = tonumber(ARGV[4]), tonumber(ARGV[5]) - 1 do
  local slot = read(number)
  local found = slot.mark + margin(slot)
  if (slot.owner == '' or slot.expires <= now) and found <= now then
    give_to(slot, nonce)
    slot.start, slot.mark = found, math.max(found, now) + window
    slot.fence, slot.expires, slot.generation = slot.fence + 1, now + ttl, generation
    slot.word = 'own'
    write(slot)
    return answer(slot)
  end
end
return { 'none' }

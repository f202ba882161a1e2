-- ARGV[3] nonce   ARGV[4] first slot   ARGV[5] end of the slots   ARGV[6] window in ms   ARGV[7] ttl in ms
-- ARGV[8] 'lease' or 'fixed'
-- Answers {'held', slot, fence, start, mark, now, generation, 'followed' or 'alone'}, {'none'} or {'wait', ms}.
local nonce, window, ttl, tenure = ARGV[3], tonumber(ARGV[6]), tonumber(ARGV[7]), ARGV[8]

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
    if tenure == 'fixed' then
      -- The process before had the same nonce: what it says late is not about this holding.
      slot.fence = slot.fence + 1
    end
    -- So that to wait for a replica is to wait for all of this, whatever was written over this connection.
    write(slot)
    return answer(slot)
  end
end
for number = tonumber(ARGV[4]), tonumber(ARGV[5]) - 1 do
  local slot = read(number)
  if is_free(slot, tenure) then
    local found = slot.mark + margin(slot)
    give_to(slot, nonce)
    slot.start, slot.mark = found, math.max(found, now) + window
    slot.fence, slot.expires, slot.generation = slot.fence + 1, now + ttl, generation
    slot.word, slot.tenure = 'own', tenure
    write(slot)
    return answer(slot)
  end
end
return { 'none' }

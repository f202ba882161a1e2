-- ARGV[3] slot   ARGV[4] nonce   ARGV[5] fence   ARGV[6] start   ARGV[7] mark   ARGV[8] the holder's generation
-- ARGV[9] the holder's idea of now   ARGV[10] window in ms   ARGV[11] ttl in ms   ARGV[12] 'lease' or 'fixed'
-- Answers {'extended', mark, now, generation} or {'lost'}.
local nonce, fence, start, mark = ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local carried, window, ttl = tonumber(ARGV[9]), tonumber(ARGV[10]), tonumber(ARGV[11])
local slot = read(tonumber(ARGV[3]))

-- REASSERT: puts back a holding that may have been forgotten.
if generation ~= ARGV[8] then
  if mark <= now then
    return { 'lost' }
  end
  if not is_held_by(slot, nonce, fence) then
    local is_newer = slot.fence < fence
    -- Somebody was given timestamps in this memory that this holder may have, too: it came too late.
    local is_overtaken = slot.generation == generation and slot.mark > mark
    if not is_newer or is_overtaken then
      return { 'lost' }
    end
  end
  give_to(slot, nonce)
  slot.fence, slot.start, slot.mark = fence, start, math.max(slot.mark, mark)
end

if not is_held_by(slot, nonce, fence) then
  return { 'lost' }
end
slot.tenure = ARGV[12]
if slot.mark <= now then
  -- The holder is told to stop, so nobody is left to use the slot: the next need not wait for it to lapse.
  vacate(slot)
  write(slot)
  return { 'lost' }
end
if settling == 0 then
  local believed = math.max(carried, math.min(now, carried + CARRY_LIMIT_MS))
  slot.mark = math.max(slot.mark, believed + window)
end
slot.expires, slot.generation = now + ttl, generation
slot.word = generation == ARGV[8] and 'own' or 'hearsay'
write(slot)
return { 'extended', whole(slot.mark), whole(now), generation }

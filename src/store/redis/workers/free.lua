-- ARGV[3] first slot   ARGV[4] end of the slots
-- Answers how many of them could be handed out now, as acquire.lua would. Changes nothing.
local free = 0
if settling == 0 then
  for number = tonumber(ARGV[3]), tonumber(ARGV[4]) - 1 do
    local slot = read(number)
    if (slot.owner == '' or slot.expires <= now) and slot.mark + margin(slot) <= now then
      free = free + 1
    end
  end
end
return { whole(free) }

-- ARGV[3] first slot   ARGV[4] end of the slots
-- Answers how many of them could be leased now, as acquire.lua would. Changes nothing.
local free = 0
if settling == 0 then
  for number = tonumber(ARGV[3]), tonumber(ARGV[4]) - 1 do
    if is_free(read(number), 'lease') then
      free = free + 1
    end
  end
end
return { whole(free) }

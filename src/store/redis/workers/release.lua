-- ARGV[3] slot   ARGV[4] nonce   ARGV[5] fence   ARGV[6] the holder's generation   ARGV[7] the last timestamp issued
local slot = read(tonumber(ARGV[3]))
if is_held_by(slot, ARGV[4], tonumber(ARGV[5])) and generation == ARGV[6] then
  slot.mark = math.max(slot.start, tonumber(ARGV[7]))
  vacate(slot)
  write(slot)
end
return { 'done' }

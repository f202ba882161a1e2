-- `Authority::fence`. ARGV: 1 fresh generation, 2 the lowest scheme that may still draw.

local unreadable = load()
if unreadable then
  return unreadable
end
if not counter then
  counter = { origin = ZERO, base = ZERO, cursor = ZERO, generation = '-', scheme = 0, target = ZERO, horizon = ZERO, second = 0, drawn = 0,
    peak = 0, members = {}, ahead = {}, returned = {} }
end
counter.scheme = math.max(counter.scheme, tonumber(ARGV[2]))
save()
if counter.generation ~= generation then
  if not settled() then
    return { 'settling', number(settling_ms) }
  elseif not is_blank() then
    return { 'unknown' }
  end
end
local highest = counter.cursor
for _, known in ipairs(counter.ahead) do
  highest = later(highest, known.range[2])
end
for _, id in ipairs(members()) do
  for _, segment in ipairs(segments(counter.members[id])) do
    highest = later(highest, segment[2])
  end
end
return { 'at', highest }

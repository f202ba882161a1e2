-- `Authority::abandon`. ARGV: 1 fresh generation, 2 the name of a node, or empty and 3 a range.

local unreadable = load()
if unreadable then
  return unreadable
end
if not counter or counter.generation ~= generation then
  return { 'unknown' }
end

local function concerns(member)
  if ARGV[3] == '' then
    return member.node == ARGV[2] and #segments(member) > 0
  end
  for _, segment in ipairs(segments(member)) do
    if overlap(segment, read_range(ARGV[3])) then
      return true
    end
  end
  return false
end

local gone, alive = {}, nil
for _, id in ipairs(members()) do
  local member = counter.members[id]
  if concerns(member) then
    if is_alive(member) then
      alive = alive or member.node
    else
      gone[#gone + 1] = id
    end
  end
end
if alive and (#gone == 0 or ARGV[3] ~= '') then
  return { 'alive', alive }
end

local given_up = {}

local function give_up(range, id, name)
  for _, hole in ipairs(holes_in(range)) do
    if hole.holder == id then
      relabel(hole, 'abandoned')
      given_up[#given_up + 1] = hole.range
    end
  end
  local next = plus(counter.cursor, 1)
  local above = next and overlap(range, { next, MAX })
  for _, part in ipairs(above and not_ahead(above) or {}) do
    given_up[#given_up + 1] = part
    counter.ahead[#counter.ahead + 1] = { range = part, node = name, abandoned = true }
  end
  sort_ahead()
end

for _, id in ipairs(gone) do
  local member = counter.members[id]
  local old = segments(member)
  member.held, member.offered, member.by = nil, nil, nil
  for _, segment in ipairs(old) do
    give_up(segment, id, member.node)
  end
end
save()
if #given_up == 0 then
  return { 'nothing' }
end
return { 'done', write_ranges(given_up) }

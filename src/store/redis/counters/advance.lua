-- `Authority::advance`. ARGV: 1 fresh generation, 2 the value.

local unreadable = load()
if unreadable then
  return unreadable
end
if not counter or counter.generation ~= generation then
  return { 'unknown' }
end
local to = ARGV[2]
if to < counter.cursor then
  return { 'below', counter.cursor }
end
for _, id in ipairs(members()) do
  local member = counter.members[id]
  for _, segment in ipairs(segments(member)) do
    if segment[1] <= to then
      counter.target = later(counter.target, to)
      save()
      return { 'held', member.node, is_alive(member) and '1' or '' }
    end
  end
end
if counter.target > to then
  counter.target = to
end
begin_above(to)
pass_to(to, {}, 'advanced')
save()
return { 'done' }

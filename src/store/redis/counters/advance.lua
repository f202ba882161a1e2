-- `Authority::advance`. ARGV: 1 fresh generation, 2 the value, 3 how far: `clear`, `move` or `desist`.

local unreadable = load()
if unreadable then
  return unreadable
end
if not counter or counter.generation ~= generation then
  return { 'unknown' }
end
local to = ARGV[2]
if ARGV[3] == 'desist' then
  counter.target = ZERO
  save()
  return { 'done' }
end
if to < counter.cursor then
  return { 'below', counter.cursor }
end
local holder
for _, id in ipairs(members()) do
  local member = counter.members[id]
  for _, segment in ipairs(segments(member)) do
    if segment[1] <= to then
      -- Who is gone swaps nothing: then nobody else is to swap for nothing.
      if not is_alive(member) then
        return { 'held', member.node, '' }
      end
      holder = holder or member
    end
  end
end
if holder then
  counter.target = later(counter.target, to)
  save()
  redis.call('PUBLISH', 'numgen:swap', sub(KEYS[1], #'sequence:' + 1))
  return { 'held', holder.node, '1' }
end
if ARGV[3] == 'clear' then
  return { 'done' }
end
if counter.target > to then
  counter.target = to
end
begin_above(to)
pass_to(to, {}, 'advanced')
save()
return { 'done' }

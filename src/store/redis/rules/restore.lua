-- Writes records that were lost. What an operator wrote meanwhile stays beside them, to be adopted or refused.
-- ARGV[2..] prefix key, revision and use that are expected ('' for no record), record: for each
-- Answers for each 'done' and false, or 'changed' and the record that stands.
bless()
local answers, changed = {}, false
for i = 2, #ARGV, 3 do
  local name, expected, new = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local record = redis.call('HGET', records, name)
  if state_of(record) ~= expected then
    answers[#answers + 1] = 'changed'
    answers[#answers + 1] = record
  else
    local written = direct_write(name, record)
    put(name, record, new)
    changed = true
    if not written then show(name, new) else redis.call('SADD', direct, name) end
    answers[#answers + 1] = 'done'
    answers[#answers + 1] = false
  end
end
-- Several nodes write back the same: only what is new is called out.
if changed then redis.call('PUBLISH', 'numgen:rules', '') end
return answers

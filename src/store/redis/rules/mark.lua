-- Marks a rule as used, if its record still has the revision. What an operator wrote beside it waits.
-- ARGV[2] prefix key   [3] revision
-- Answers 1 if it is used now, else 0.
local record = redis.call('HGET', records, ARGV[2])
local rule = rule_of(record)
if not rule then return 0 end
local revision, used = string.match(state_of(record), '^(%d+) ([01])$')
if revision ~= ARGV[3] then return 0 end
if used == '0' then
  local history = string.sub(record, #rule + #state_of(record) + 3)
  put(ARGV[2], record, rule .. '\n' .. revision .. ' 1\n' .. history)
end
return 1

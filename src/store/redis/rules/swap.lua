-- Replaces the record of a key, if it and what stands beside it are as the caller saw them.
-- ARGV[2] prefix key   [3] revision and use that are expected, '' for no record   [4] token of the direct write that the record
-- takes the place of, '' for none, '*' to leave there whatever there is   [5] the new record
-- Answers 'done'; 'changed' and the record that stands; or 'settling' and for how many ms a record that is not there may still
-- be written back by somebody who remembers it.
local name, expected, token, new = ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local _, settling_ms = bless()
local record = redis.call('HGET', records, name)
if state_of(record) ~= expected then return { 'changed', record } end
if not record and settling_ms > 0 then return { 'settling', settling_ms } end
if token ~= '*' and (direct_write(name, record) or '') ~= token then return { 'changed', record } end
put(name, record, new)
if token ~= '*' then show(name, new) end
redis.call('PUBLISH', 'numgen:rules', name)
return { 'done' }

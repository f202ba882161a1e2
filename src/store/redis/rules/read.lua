-- The record of a key and what an operator wrote beside it.
-- ARGV[2] prefix key
-- Answers the record, the token of the direct write or '', its text, and for how many ms an absent record may still be written back.
local _, settling_ms = bless()
local record = redis.call('HGET', records, ARGV[2])
local token, text = direct_write(ARGV[2], record)
return { record, token or '', token and text, record and 0 or settling_ms }

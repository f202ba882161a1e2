-- The rows of the numbers strictly between two texts, in order.
-- KEYS[1] the index   [2] rows
-- ARGV[1] and [2] the texts   [3] how many at most
local numbers = redis.call('ZRANGEBYLEX', KEYS[1], '(' .. ARGV[1], '(' .. ARGV[2], 'LIMIT', 0, ARGV[3])
if #numbers == 0 then return {} end
return redis.call('HMGET', KEYS[2], unpack(numbers))

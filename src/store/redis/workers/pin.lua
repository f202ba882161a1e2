-- KEYS[1] the record   ARGV[1] layout, epoch and data centre of the asking node
-- Answers what is recorded: the first that came.
redis.call('SET', KEYS[1], ARGV[1], 'NX')
return redis.call('GET', KEYS[1])

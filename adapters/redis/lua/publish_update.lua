-- Publishes an update of the online model, unless a newer deployment publishes, or the update before it is not here.

-- KEYS head updates whole; ARGV epoch sequence after kept_from bytes
local epoch, sequence = string.match(redis.call('GET', KEYS[1]) or '', '^(%d+):(%d+)$')
if epoch and tonumber(epoch) > tonumber(ARGV[1]) then return -1 end
if epoch ~= ARGV[1] or sequence ~= ARGV[3] or redis.call('EXISTS', KEYS[3]) == 0 then return 0 end
redis.call('ZADD', KEYS[2], ARGV[2], ARGV[5])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', '(' .. ARGV[4])
redis.call('SET', KEYS[1], ARGV[1] .. ':' .. ARGV[2])
return 1

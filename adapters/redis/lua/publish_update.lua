-- Publishes an update of the online model, unless a newer deployment publishes, or the update before it is not here.

-- KEYS head whole update; ARGV epoch sequence after ttl_ms bytes
local epoch, sequence = string.match(redis.call('GET', KEYS[1]) or '', '^(%d+):(%d+)$')
if epoch and tonumber(epoch) > tonumber(ARGV[1]) then return -1 end
if epoch ~= ARGV[1] or sequence ~= ARGV[3] or redis.call('EXISTS', KEYS[2]) == 0 then return 0 end
redis.call('SET', KEYS[3], ARGV[5], 'PX', ARGV[4])
redis.call('SET', KEYS[1], ARGV[1] .. ':' .. ARGV[2])
return 1

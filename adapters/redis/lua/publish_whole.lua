-- Writes the whole online model as of a sequence, unless a newer deployment publishes.

-- KEYS head whole; ARGV epoch sequence bytes
local epoch = string.match(redis.call('GET', KEYS[1]) or '', '^(%d+):')
if epoch and tonumber(epoch) > tonumber(ARGV[1]) then return -1 end
redis.call('SET', KEYS[2], ARGV[3])
redis.call('SET', KEYS[1], ARGV[1] .. ':' .. ARGV[2])
return 1

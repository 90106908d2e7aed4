-- Writes the whole online model as of a sequence, unless a newer deployment publishes.

-- Updates that lead up to it stay for who follows them; those of another deployment, or of a learner that went back to a
-- snapshot, lead nowhere.
-- KEYS head updates whole; ARGV epoch sequence bytes
local epoch, sequence = string.match(redis.call('GET', KEYS[1]) or '', '^(%d+):(%d+)$')
if epoch and tonumber(epoch) > tonumber(ARGV[1]) then return -1 end
if epoch ~= ARGV[1] or sequence ~= ARGV[2] then redis.call('DEL', KEYS[2]) end
redis.call('SET', KEYS[3], ARGV[3])
redis.call('SET', KEYS[1], ARGV[1] .. ':' .. ARGV[2])
return 1

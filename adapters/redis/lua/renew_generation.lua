-- Replaces the generation record unless another writer has done so: `previous` is what was read, empty for none.
--
-- It deletes first: if Redis has reached `maxmemory`, a script may only add after a deletion.

-- KEYS generation; ARGV previous next
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1])
redis.call('SET', KEYS[1], ARGV[2])
return 1

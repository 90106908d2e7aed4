-- Writes a list that is nobody's own, popular or similar, unless a newer one is stored.

-- KEYS list; ARGV epoch version ttl_ms bytes
-- include refuse_older.lua
redis.call('SET', KEYS[1], ARGV[4], 'PX', ARGV[3])
return 1

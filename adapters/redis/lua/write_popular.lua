-- Writes a segment's popular list unless a newer one is stored.

-- KEYS popular; ARGV epoch version ttl_ms bytes
-- include refuse_older.lua
redis.call('SET', KEYS[1], ARGV[4], 'PX', ARGV[3])
return 1

-- Writes a list if the user's consent is still the one it was made under, and no newer list is stored.
--
-- The same record, not just an equal one: a restored job may hold the profile of a user who has since withdrawn and
-- consented again. No list outlives its consent, so readers need not check the clock.

-- KEYS list consent gone; ARGV epoch version ttl_ms consent bytes
if redis.call('EXISTS', KEYS[3]) == 1 then return -2 end
if redis.call('GET', KEYS[2]) ~= ARGV[4] then return -1 end
local level, expires_at = string.match(ARGV[4], '^{"level":"(%a+)","expires_at":(%d+)')
if level == 'none' then return -1 end
local ttl_ms = tonumber(ARGV[3])
if expires_at ~= '0' then
  local now = redis.call('TIME')
  ttl_ms = math.min(ttl_ms, tonumber(expires_at) - now[1] * 1000 - math.floor(now[2] / 1000))
  if ttl_ms <= 0 then return -1 end
end
-- include refuse_older.lua
redis.call('SET', KEYS[1], ARGV[5], 'PX', ttl_ms)
return 1

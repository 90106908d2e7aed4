
-- KEYS list consent gone; ARGV proof
if redis.call('EXISTS', KEYS[3]) == 1 then return false end
local consent = redis.call('GET', KEYS[2])
if not consent or string.sub(consent, 1, 15) == '{"level":"none"' then return false end
if ARGV[1] == '' or string.sub(consent, -#ARGV[1]) ~= ARGV[1] then return false end
local list = redis.call('GET', KEYS[1])
return list and {list, consent}

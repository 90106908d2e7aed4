-- Ends all personalisation of a user at once, before the topic has the record. Whatever is appended after now is later.
--
-- Returns the effective time of the withdrawal in ms: `said_at`, or now if that is in the future or more than a day ago.
-- A clock that is ahead must not block later grants, and one that has stopped must not let older grants pass.
-- Deletes the list first, as write_consent.lua does.

-- KEYS list consent gone past; ARGV said_at wants ttl_ms; wants: none or erase
redis.call('DEL', KEYS[1])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local said = tonumber(ARGV[1])
if said > now or said < now - 86400000 then said = now end
said = string.format('%.0f', said)
local place = '"at":' .. string.format('%.0f', now) .. ',"partition":-1,"offset":-1,"withdrawn":' .. said .. '}'
local erased = ARGV[2] == 'erase'
redis.call('SET', KEYS[3], '{"erased":' .. tostring(erased) .. ',' .. place, 'PX', ARGV[3])
if erased then
  redis.call('DEL', KEYS[2], KEYS[4])
else
  redis.call('SET', KEYS[2], '{"level":"none","expires_at":0,' .. place, 'PX', ARGV[3])
end
return said

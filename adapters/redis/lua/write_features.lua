-- Writes the features of a user as a row of Feast, unless row or state have changed since they were read.
--
-- The row also holds the profile that the features were computed from, so that both end at the same moment; the state
-- is the consent, which outlives it. Without values the row is deleted, whatever else has written to it.

-- KEYS row state; ARGV seen_state seen_profile state state_ends_at row_ends_at field value …
-- state: empty deletes it; state_ends_at 0: never; times in ms since the epoch
local state = redis.call('GET', KEYS[2]) or ''
local profile = redis.call('HGET', KEYS[1], 'freshet:profile') or ''
if state ~= ARGV[1] or profile ~= ARGV[2] then return 0 end
-- First: Redis refuses a script that begins with an addition when its memory is full, and lets one end that has begun.
if #ARGV == 5 then redis.call('DEL', KEYS[1]) end
if ARGV[3] == '' then
  redis.call('DEL', KEYS[2])
elseif ARGV[4] == '0' then
  redis.call('SET', KEYS[2], ARGV[3])
else
  redis.call('SET', KEYS[2], ARGV[3], 'PXAT', ARGV[4])
end
if #ARGV > 5 then
  redis.call('HSET', KEYS[1], unpack(ARGV, 6))
  redis.call('PEXPIREAT', KEYS[1], ARGV[5])
end
return 1

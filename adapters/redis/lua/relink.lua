-- Moves a user's keys from the previous pseudonym to the current one, unless a decision was made under that.

-- KEYS list consent gone past of the current pseudonym; ARGV bytes and ttl_ms of each of the previous one's
if redis.call('EXISTS', KEYS[2], KEYS[3]) > 0 then return 0 end
for place, key in ipairs(KEYS) do
  local bytes, ttl_ms = ARGV[2 * place - 1], ARGV[2 * place]
  if bytes ~= '' then
    if tonumber(ttl_ms) > 0 then redis.call('SET', key, bytes, 'PX', ttl_ms) else redis.call('SET', key, bytes) end
  end
end
return 1

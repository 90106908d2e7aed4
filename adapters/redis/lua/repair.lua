-- Removes what is no string: nothing of ours is anything else. Answers how many keys that were.

-- KEYS any
local removed = 0
for _, key in ipairs(KEYS) do
  local kind = redis.call('TYPE', key).ok
  if kind ~= 'string' and kind ~= 'none' then removed = removed + redis.call('DEL', key) end
end
return removed

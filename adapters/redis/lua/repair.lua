-- Removes keys that are not strings, because all of ours are. Returns how many.

-- KEYS any
local removed = 0
for _, key in ipairs(KEYS) do
  local kind = redis.call('TYPE', key).ok
  if kind ~= 'string' and kind ~= 'none' then removed = removed + redis.call('DEL', key) end
end
return removed

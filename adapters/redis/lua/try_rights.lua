-- Which commands the user of this connection lacks, in lower case.

-- KEYS two of our own; whatever the other scripts do, done to keys that hold nothing
local refused = {}
local function try(...)
  local answer = redis.pcall(...)
  if type(answer) == 'table' and answer.err then
    if string.find(answer.err, "can't") or string.find(answer.err, 'NOPERM') or string.find(answer.err, 'ACL') then
      refused[#refused + 1] = string.lower((...))
    end
  end
end
try('SET', KEYS[1], '', 'PX', 1000)
try('GET', KEYS[1])
try('GETRANGE', KEYS[1], 0, 1)
try('EXISTS', KEYS[1])
try('TYPE', KEYS[1])
try('RENAME', KEYS[1], KEYS[2])
try('TIME')
try('DEL', KEYS[1], KEYS[2])
return refused

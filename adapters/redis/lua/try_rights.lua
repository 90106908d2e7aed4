-- Returns the commands that this connection's user may not run, in lower case.

-- KEYS two unused keys of our own; runs on them every command that the other scripts use
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

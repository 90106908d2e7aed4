-- Writes a consent unless a later one is stored; a changed consent always deletes the old list.
--
-- A withdrawal written here directly is replaced by the same one from the topic, or by a later one.
-- A grant given no later than a withdrawal is refused even if it comes after it in the topic. So is a grant before it,
-- which a restored job reads again: it no longer allows what it allowed then.
--
-- A grant at the place of a withdrawal was refused, and the job wrote that again after Redis had lost it.
--
-- A withdrawal that follows a later-dated one keeps that later time: the user has refused as late as that.
--
-- A hold is the place of a record that the job has not applied yet: until then nothing is personal. The grant at the
-- same place ends it, once it counts in a generation. An unreadable value counts as none.
--
-- Deletes the list first: if Redis has reached `maxmemory`, a script may only add after a deletion.

-- KEYS list consent gone past; ARGV at partition offset said_at wants bytes ttl_ms tombstone proof
-- wants: grant, hold, none or erase; tombstone: only for none and erase, else empty
-- proof: of the generation that a grant counts in, or empty
local bytes, tombstone = ARGV[6], ARGV[8]
local permits = ARGV[5] == 'grant' or ARGV[5] == 'hold'
local place = '"at":(%d+),"partition":(%-?%d+),"offset":(%-?%d+)'
local known = redis.call('GET', KEYS[2])
if not (known and string.find(known, place)) then known = redis.call('GET', KEYS[3]) end
local at, partition, offset
if known then at, partition, offset = string.match(known, place) end
if at then
  local withdrawn = string.match(known, '"withdrawn":(%d+)')
  local comes_after = tonumber(at) < tonumber(ARGV[1])
  if partition == ARGV[2] then
    if offset == ARGV[3] then
      if permits and withdrawn and tonumber(ARGV[4]) <= tonumber(withdrawn) then return -1 end
      if ARGV[5] ~= 'grant' or ARGV[9] == '' or string.sub(known, -#ARGV[9]) == ARGV[9] then return 1 end
      comes_after = true
    else
      comes_after = tonumber(offset) < tonumber(ARGV[3])
    end
  elseif partition == '-1' and not permits and tonumber(ARGV[4]) >= tonumber(withdrawn or 0) then
    comes_after = true
  end
  if not comes_after then
    if not permits then return 0 end
    if withdrawn then return -1 end
    local past = redis.call('GET', KEYS[4])
    if not past then return 0 end
    at, partition, offset = string.match(past, place)
    withdrawn = string.match(past, '"withdrawn":(%d+)')
    if not (at and withdrawn) then return 0 end
    local left_since = tonumber(at) > tonumber(ARGV[1])
    if partition == ARGV[2] then left_since = tonumber(offset) > tonumber(ARGV[3]) end
    return (left_since or tonumber(ARGV[4]) <= tonumber(withdrawn)) and -1 or 0
  end
  if withdrawn and tonumber(ARGV[4]) <= tonumber(withdrawn) then
    if permits then return -1 end
    bytes = string.gsub(bytes, '"withdrawn":%d+', '"withdrawn":' .. withdrawn)
    tombstone = string.gsub(tombstone, '"withdrawn":%d+', '"withdrawn":' .. withdrawn)
  end
end
redis.call('DEL', KEYS[1])
if ARGV[5] == 'grant' then
  if redis.call('EXISTS', KEYS[3]) == 1 then redis.call('RENAME', KEYS[3], KEYS[4]) end
elseif not permits then
  redis.call('SET', KEYS[3], tombstone, 'PX', ARGV[7])
end
if ARGV[5] == 'erase' then
  redis.call('DEL', KEYS[2], KEYS[4])
  return 1
end
if ARGV[7] == '0' then
  redis.call('SET', KEYS[2], bytes)
else
  redis.call('SET', KEYS[2], bytes, 'PX', ARGV[7])
end
return 1

-- Included by both list scripts: KEYS[1] is the list; ARGV begins with epoch and version.
local version, epoch = string.match(redis.call('GETRANGE', KEYS[1], 0, 63), '^{"v":(%d+),"epoch":(%d+)')
if version then
  version, epoch = tonumber(version), tonumber(epoch)
  local mine = tonumber(ARGV[1])
  if epoch > mine or (epoch == mine and version > tonumber(ARGV[2])) then return 0 end
end

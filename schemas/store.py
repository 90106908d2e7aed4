"""The layout of Redis: key names, and the scripts that are the only way to write or read them.

Per user, under one hash tag so that a Cluster keeps them in one slot:

``{pseudonym}:list``     the list, ready-to-send bytes (:mod:`schemas.lists`), expiring
``{pseudonym}:consent``  ``{"level":"full","expires_at":ms,"at":ms,"partition":n,"offset":n,"generation":token}``: the
                         last consent in topic order; with level none also ``"withdrawn":ms``, when the user said so. It
                         stays for a tombstone's life after it has expired (0: never) or was withdrawn: it holds off
                         those before it
``{pseudonym}:gone``     a tombstone, ``{"erased":false,"at":ms,"partition":n,"offset":n,"withdrawn":ms}``, of a user
                         who has withdrawn or was erased, with the place of that record
``{pseudonym}:past``     what was the tombstone of a user who has consented again since

A tombstone's life is longer than any snapshot that may be restored and any record that may be read again is old.
A withdrawal that is written here before it is in the topic has partition and offset -1.

``generation`` is the generation record (:class:`Generation`): which Redis processes are known to hold every
acknowledged decision. Redis may come back older than it was: after a crash, a failover to a replica that lagged, a
restored dump. A process has a run id of its own, so whoever connects compares it with the record. Where it is not among
`runs`, no personal list is read until the job has made a new token, has read `consents` up to where it ended by then,
and has written the consents anew. A grant counts only with the token of the record; what forbids counts with any.

``popular:<segment>`` holds the popular list of a segment, ``popular:all`` that of everybody.
Consents are ordered by offset within a partition of `consents`, by append time across; lists by (epoch, version).
All numbers stay below 2^53, because Lua compares doubles.
"""

import hashlib
import re
from enum import IntEnum
from typing import Annotated, Any, Final, NamedTuple

import msgspec
from msgspec import Meta

from schemas.consents import LEVEL_NAME, Level
from schemas.topics import DAY_MS


class WriteOutcome(IntEnum):
    """What the list script answers. NO_ROOM: Redis has reached `maxmemory` and takes nothing more."""

    WRITTEN = 1
    STALE = 0
    NO_CONSENT = -1
    GONE = -2
    NO_ROOM = -3


class ConsentOutcome(IntEnum):
    """What the consent script answers."""

    IN_FORCE = 1
    STALE = 0
    REFUSED = -1


def user_keys(prefix: str, pseudonym: str) -> tuple[str, str, str]:
    """The list, consent and tombstone keys of a user."""
    tag = f"{prefix}{{{pseudonym}}}"
    return f"{tag}:list", f"{tag}:consent", f"{tag}:gone"


def past_key(prefix: str, pseudonym: str) -> str:
    """The key of the tombstone of a user who came back."""
    return f"{prefix}{{{pseudonym}}}:past"


def all_user_keys(prefix: str, pseudonym: str) -> tuple[str, str, str, str]:
    """All keys of a user: list, consent, tombstone, and the tombstone of who came back."""
    return *user_keys(prefix, pseudonym), past_key(prefix, pseudonym)


class Generation(msgspec.Struct, frozen=True):
    """The generation record: `runs` are the lives of Redis processes that `token` holds for.

    A life is ``<run_id>.<master_replid>``: a server that was demoted and promoted again is another one
    (:mod:`adapters.redis.greeting`). One process, or all primaries of a Cluster. `at` is in ms since the epoch.
    """

    token: Annotated[str, Meta(pattern="^[0-9a-f]{12}$")]
    runs: tuple[str, ...]
    at: int


_decode_generation: Final = msgspec.json.Decoder(Generation).decode


def generation_key(prefix: str) -> str:
    """The key of the generation record. In a Cluster it lies in one slot and speaks for all nodes."""
    return f"{prefix}generation"


def decode_generation(raw: bytes | None) -> Generation | None:
    """The generation record in `raw`; one that cannot be read is none, and nothing is believed."""
    try:
        return None if raw is None else _decode_generation(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def proof_of(token: str) -> bytes:
    """What a consent key ends with when it counts in the generation `token`: ARGV[1] of :data:`READ_LIST`.

    >>> proof_of("0123456789ab")
    b'"generation":"0123456789ab"}'
    """
    return b'"generation":"%b"}' % token.encode()


def proven(consent: bytes, token: str) -> bytes:
    """A consent value that counts in the generation `token`; with "" one that counts in none.

    >>> proven(b'{"level":"full"}', "0123456789ab"), proven(b'{"level":"full"}', "")
    (b'{"level":"full","generation":"0123456789ab"}', b'{"level":"full"}')
    """
    return b"%b,%b" % (consent[:-1], proof_of(token)) if token else consent


def owner_key(prefix: str) -> str:
    """Where it stands which deployment the keys under `prefix` are of.

    >>> owner_key("shop:")
    'shop:deployment'
    """
    return f"{prefix}deployment"


def popular_key(prefix: str, segment: str) -> str:
    """The key of a segment's popular list."""
    return f"{prefix}popular:{segment}"


def consent_value(level: Level, expires_at: int, at: int, partition: int, offset: int) -> bytes:
    """The bytes of a consent key; times in ms since the epoch.

    >>> consent_value(Level.FULL, 0, 12, 0, 3)
    b'{"level":"full","expires_at":0,"at":12,"partition":0,"offset":3}'
    """
    name = LEVEL_NAME[level].encode()
    return b'{"level":"%b","expires_at":%d,"at":%d,"partition":%d,"offset":%d}' % (
        name,
        expires_at,
        at,
        partition,
        offset,
    )


def withdrawn_value(at: int, partition: int, offset: int, withdrawn: int) -> bytes:
    """The bytes of a consent key after a withdrawal that the user made at `withdrawn`.

    >>> withdrawn_value(12, 0, 3, 11)
    b'{"level":"none","expires_at":0,"at":12,"partition":0,"offset":3,"withdrawn":11}'
    """
    return b'%b,"withdrawn":%d}' % (consent_value(Level.NONE, 0, at, partition, offset)[:-1], withdrawn)


def gone_value(at: int, partition: int, offset: int, withdrawn: int, erased: bool) -> bytes:
    """The bytes of a tombstone.

    >>> gone_value(12, 0, 3, 11, True)
    b'{"erased":true,"at":12,"partition":0,"offset":3,"withdrawn":11}'
    """
    said = b"true" if erased else b"false"
    return b'{"erased":%b,"at":%d,"partition":%d,"offset":%d,"withdrawn":%d}' % (said, at, partition, offset, withdrawn)


class ConsentWrite(NamedTuple):
    """What :data:`WRITE_CONSENT` is told of a consent change; times in ms. With `erase` the level is none.

    `token` is the generation that a grant counts in, "" for none.
    """

    level: Level
    expires_at: int
    at: int
    partition: int
    offset: int
    said_at: int
    erase: bool
    token: str = ""

    def value(self) -> bytes:
        """The bytes of the consent key when it is in force."""
        place = self.at, self.partition, self.offset
        if self.level == Level.NONE:
            return withdrawn_value(*place, self.said_at)
        return proven(consent_value(self.level, self.expires_at, *place), self.token)

    def arguments(self, tombstone_ms: int) -> tuple[Any, ...]:
        """ARGV of the script. What is no more, or ends, is a fence for `tombstone_ms` after; what has no end stays."""
        place = self.at, self.partition, self.offset
        if self.level == Level.NONE:
            wants, ttl_ms = "erase" if self.erase else "none", tombstone_ms
            tombstone = gone_value(*place, self.said_at, self.erase)
        else:
            wants, tombstone = "grant", b""
            ttl_ms = max(0, self.expires_at - self.at) + tombstone_ms if self.expires_at else 0
        return *place, self.said_at, wants, self.value(), ttl_ms, tombstone, proof_of(self.token) if self.token else b""


def hold_arguments(at: int, partition: int, offset: int, said_at: int, tombstone_ms: int) -> tuple[Any, ...]:
    """ARGV of :data:`WRITE_CONSENT` that holds personalisation until the job has put the record at this place in force.

    Whoever records a consent change does not know the job's policy, so any change but a withdrawal may leave less than
    before. Times in ms.
    """
    value = consent_value(Level.NONE, 0, at, partition, offset)
    return at, partition, offset, said_at, "hold", value, tombstone_ms, b"", b""


_WITHDRAWN: Final = re.compile(rb'"withdrawn":(\d+)')


def withdrawn_at(value: bytes) -> int:
    """When the user behind a consent key or a tombstone last said no, in ms; 0 where the key says nothing of it.

    >>> withdrawn_at(withdrawn_value(12, 0, 3, 11)), withdrawn_at(consent_value(Level.FULL, 0, 12, 0, 3))
    (11, 0)
    """
    found = _WITHDRAWN.search(value)
    return int(found[1]) if found else 0


_REFUSE_OLDER: Final = """
local version, epoch = string.match(redis.call('GETRANGE', KEYS[1], 0, 63), '^{"v":(%d+),"epoch":(%d+)')
if version then
  version, epoch = tonumber(version), tonumber(epoch)
  local mine = tonumber(ARGV[1])
  if epoch > mine or (epoch == mine and version > tonumber(ARGV[2])) then return 0 end
end
"""
"""What both list scripts begin with: KEYS[1] holds the list; ARGV begins with epoch and version."""

WRITE_LIST: Final = (
    """
-- KEYS list consent gone; ARGV epoch version ttl_ms consent bytes
if redis.call('EXISTS', KEYS[3]) == 1 then return -2 end
if redis.call('GET', KEYS[2]) ~= ARGV[4] then return -1 end
local level, expires_at = string.match(ARGV[4], '^{"level":"(%a+)","expires_at":(%d+)')
if level == 'none' then return -1 end
local ttl_ms = tonumber(ARGV[3])
if expires_at ~= '0' then
  local now = redis.call('TIME')
  ttl_ms = math.min(ttl_ms, tonumber(expires_at) - now[1] * 1000 - math.floor(now[2] / 1000))
  if ttl_ms <= 0 then return -1 end
end
"""
    + _REFUSE_OLDER
    + """
redis.call('SET', KEYS[1], ARGV[5], 'PX', ttl_ms)
return 1
"""
)
"""Writes a list if the user's consent is still the very one it was made under, and no newer list stands there.

The very one, not one like it: a restored job may hold the profile of a user who withdrew since and consented again.
No list outlives the consent that it was made under, which is why reading need not look at the clock.
"""

WRITE_CONSENT: Final = """
-- KEYS list consent gone past; ARGV at partition offset said_at wants bytes ttl_ms tombstone proof
-- wants: grant, hold, none or erase; tombstone: empty but for none and erase
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
"""
"""Puts a consent in force unless a later one stands there; a changed consent always takes the old list away.

A withdrawal that was written here directly gives its place to the same one from the topic, or to a later one.
A grant that was given no later than a withdrawal is refused, though it comes after it in the topic; so is one that
comes before it, which a restored job reads again: what it allowed then, it allows no more.

A withdrawal keeps the time of a later one that it comes after: the user has said no as late as that.

A hold is the place of a record that the job has not put in force yet: until then nothing is personal. The grant at the
very place ends it, once it counts in a generation. A value that cannot be read counts as none.

The list goes first: where Redis has reached `maxmemory`, a script may add only after it has removed something.
"""

WITHDRAW: Final = f"""
-- KEYS list consent gone past; ARGV said_at wants ttl_ms; wants: none or erase
redis.call('DEL', KEYS[1])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local said = tonumber(ARGV[1])
if said > now or said < now - {DAY_MS} then said = now end
said = string.format('%.0f', said)
local place = '"at":' .. string.format('%.0f', now) .. ',"partition":-1,"offset":-1,"withdrawn":' .. said .. '}}'
local erased = ARGV[2] == 'erase'
redis.call('SET', KEYS[3], '{{"erased":' .. tostring(erased) .. ',' .. place, 'PX', ARGV[3])
if erased then
  redis.call('DEL', KEYS[2], KEYS[4])
else
  redis.call('SET', KEYS[2], '{{"level":"none","expires_at":0,' .. place, 'PX', ARGV[3])
end
return said
"""
"""Ends all personalisation of a user at once, before the topic knows: what has not been appended by now is later.

Answers when the user counts as having said so, in ms: `said_at`, or now where that lies in the future or more than a
day back. A clock that runs ahead must not hold off later grants, and one that stands must not let older grants pass.
The list goes first, as in :data:`WRITE_CONSENT`.
"""

RELINK: Final = """
-- KEYS list consent gone past of the current pseudonym; ARGV bytes and ttl_ms of each of the previous one's
if redis.call('EXISTS', KEYS[2], KEYS[3]) > 0 then return 0 end
for place, key in ipairs(KEYS) do
  local bytes, ttl_ms = ARGV[2 * place - 1], ARGV[2 * place]
  if bytes ~= '' then
    if tonumber(ttl_ms) > 0 then redis.call('SET', key, bytes, 'PX', ttl_ms) else redis.call('SET', key, bytes) end
  end
end
return 1
"""
"""Puts what stands under a user's previous pseudonym under the current one, unless something was decided there."""

READ_LIST: Final = """
-- KEYS list consent gone; ARGV proof
if redis.call('EXISTS', KEYS[3]) == 1 then return false end
local consent = redis.call('GET', KEYS[2])
if not consent or string.sub(consent, 1, 15) == '{"level":"none"' then return false end
if ARGV[1] == '' or string.sub(consent, -#ARGV[1]) ~= ARGV[1] then return false end
local list = redis.call('GET', KEYS[1])
return list and {list, consent}
"""
"""The user's list and the consent that it stands under, or nothing where consent does not allow one.

`proof` is :func:`proof_of` the token of the generation record, whose `runs` have the run id of this very connection.
"""

READ_LIST_SHA: Final = hashlib.sha1(READ_LIST.encode(), usedforsecurity=False).hexdigest()
"""What Redis calls it by."""

RENEW_GENERATION: Final = """
-- KEYS generation; ARGV previous next
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1])
redis.call('SET', KEYS[1], ARGV[2])
return 1
"""
"""Replaces the generation record unless somebody else has done so: `previous` is what was read, empty for none.

It removes first: where Redis has reached `maxmemory`, a script may add only after that.
"""

WRITE_POPULAR: Final = (
    """
-- KEYS popular; ARGV epoch version ttl_ms bytes
"""
    + _REFUSE_OLDER
    + """
redis.call('SET', KEYS[1], ARGV[4], 'PX', ARGV[3])
return 1
"""
)
"""Writes a segment's popular list unless a newer one stands there."""

"""The layout of Redis: key names, and the format of the values.

Only the scripts in ``adapters/redis/lua`` write or read lists and consents.

Keys of a user share one hash tag, so that a Cluster keeps them in one slot:

``{pseudonym}:list``     the list, ready-to-send bytes (:mod:`schemas.lists`), expiring
``{pseudonym}:consent``  ``{"level":"full","expires_at":ms,"at":ms,"partition":n,"offset":n,"generation":token}``: the
                         last consent in topic order; with level none also ``"withdrawn":ms``, the time stated by the
                         user. After it has expired (0: never) or was withdrawn, it is kept for the life of a
                         tombstone, to reject earlier consents
``{pseudonym}:gone``     a tombstone, ``{"erased":false,"at":ms,"partition":n,"offset":n,"withdrawn":ms}``, of a user
                         who has withdrawn or was erased, with the place of that record
``{pseudonym}:past``     the former tombstone of a user who has consented again

A tombstone outlives every snapshot that may be restored and every record that may be read again. A withdrawal that is
written here before it is in the topic has partition and offset -1.

``generation`` is the generation record (:class:`Generation`): the Redis processes that are known to have every
acknowledged decision. Redis may lose its latest writes: after a crash, a failover to a lagging replica, or a restored
dump. Each process has its own run id, so clients compare it with the record when they connect. If it is not among
`runs`, no personal list is read until the job has made a new token, has read `consents` up to its end at that time, and
has rewritten the consents. A grant counts only with the token of the record; withdrawals count with any.

``popular:<segment>`` contains the popular list of a segment, ``popular:all`` that of all users, ``popular:trending``
what rises at the moment, ``similar:<item>`` the items similar to one. Nobody's data is in them. Consents are ordered by
offset within a partition of `consents`, by append time across partitions; lists by (epoch, version). All numbers are
below 2^53, because Lua compares doubles.

``handover`` is the record of the last take-over by another job, ``handover:…`` who is ready for one
(:mod:`schemas.handover`).

The keys of the online model share one hash tag: ``{online}:after:<sequence>`` is the update that follows a sequence,
expiring, ``{online}:whole`` the whole model as of a sequence, and ``{online}:head`` is ``epoch:sequence`` of the last
update. None of them has data of a user (:mod:`models.online`).
"""

import re
from enum import IntEnum
from typing import Annotated, Any, Final, NamedTuple, Protocol

import msgspec
from msgspec import Meta

from schemas.consents import LEVEL_NAME, Level
from schemas.exploration import ExploredList
from schemas.lists import RecommendationList, UserReason
from schemas.pseudonyms import KeyRing, user_fingerprints

ALL: Final = "all"
"""The segment of all users."""
TRENDING: Final = "trending"
"""What `popular:trending` has instead of a segment: segments of users other than `all` have a colon in their names."""


class WriteOutcome(IntEnum):
    """The results of the list script. NO_ROOM: Redis has reached `maxmemory` and rejects writes."""

    WRITTEN = 1
    STALE = 0
    NO_CONSENT = -1
    GONE = -2
    NO_ROOM = -3


class ConsentOutcome(IntEnum):
    """The results of the consent script."""

    IN_FORCE = 1
    STALE = 0
    REFUSED = -1


def user_keys(prefix: str, pseudonym: str) -> tuple[str, str, str]:
    """The list, consent and tombstone keys of a user."""
    tag = f"{prefix}{{{pseudonym}}}"
    return f"{tag}:list", f"{tag}:consent", f"{tag}:gone"


def past_key(prefix: str, pseudonym: str) -> str:
    """The key of the former tombstone of a user who has consented again."""
    return f"{prefix}{{{pseudonym}}}:past"


def all_user_keys(prefix: str, pseudonym: str) -> tuple[str, str, str, str]:
    """All keys of a user: list, consent, tombstone and former tombstone."""
    return *user_keys(prefix, pseudonym), past_key(prefix, pseudonym)


class TenantMark(msgspec.Struct, frozen=True, omit_defaults=True):
    """The settings that the job and all its readers and writers must share, as far as they are known.

    `keys` are fingerprints (:func:`schemas.pseudonyms.fingerprint`) of the keys behind pseudonyms, by key id.
    """

    topic_prefix: str | None = None
    keys: dict[str, str] = {}

    def complaint_about(self, job: "TenantMark") -> str:
        """Why this mark does not belong to the tenant of a `job`; empty if nothing contradicts it."""
        if None not in (self.topic_prefix, job.topic_prefix) and self.topic_prefix != job.topic_prefix:
            return (
                f"the job under this redis_prefix reads topics with the prefix {job.topic_prefix!r}, and not "
                f"{self.topic_prefix!r}: use the tenant file of the job"
            )
        shared = self.keys.keys() & job.keys.keys()
        if self.keys and job.keys and (not shared or any(self.keys[kid] != job.keys[kid] for kid in shared)):
            return "the job under this redis_prefix has another key ring: use the tenant file of the job"
        return ""


def mark_of(ring: KeyRing, topic_prefix: str | None = None) -> TenantMark:
    """The mark of a tenant with this key ring."""
    return TenantMark(topic_prefix, user_fingerprints(ring))


class Generation(msgspec.Struct, frozen=True, omit_defaults=True):
    """The generation record: `runs` are the lives of the Redis processes for which `token` is valid.

    A life is ``<run_id>.<master_replid>``: a server that was demoted and promoted again has a new one
    (:mod:`adapters.redis.greeting`). There is one process, or all primaries of a Cluster. `at` is in ms since the
    epoch.
    """

    token: Annotated[str, Meta(pattern="^[0-9a-f]{12}$")]
    runs: tuple[str, ...]
    at: int
    tenant: TenantMark = TenantMark()
    """That of the job that wrote the record: clients of other tenants must not read or acknowledge anything here."""


_decode_generation: Final = msgspec.json.Decoder(Generation).decode


def generation_key(prefix: str) -> str:
    """The key of the generation record. In a Cluster it is in one slot but applies to all nodes."""
    return f"{prefix}generation"


def decode_generation(raw: bytes | None) -> Generation | None:
    """The generation record in `raw`; an unreadable one counts as missing, so nothing is trusted."""
    try:
        return None if raw is None else _decode_generation(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def proof_of(token: str) -> bytes:
    """The suffix of a consent value that counts in the generation `token`: ARGV[1] of ``read_list.lua``.

    >>> proof_of("0123456789ab")
    b'"generation":"0123456789ab"}'
    """
    return b'"generation":"%b"}' % token.encode()


def proven(consent: bytes, token: str) -> bytes:
    """A consent value that counts in the generation `token`; with "", one that counts in no generation.

    >>> proven(b'{"level":"full"}', "0123456789ab"), proven(b'{"level":"full"}', "")
    (b'{"level":"full","generation":"0123456789ab"}', b'{"level":"full"}')
    """
    return b"%b,%b" % (consent[:-1], proof_of(token)) if token else consent


def owner_key(prefix: str) -> str:
    """The key that names the deployment to which the keys under `prefix` belong.

    >>> owner_key("shop:")
    'shop:deployment'
    """
    return f"{prefix}deployment"


def popular_key(prefix: str, segment: str) -> str:
    """The key of a segment's popular list."""
    return f"{prefix}popular:{segment}"


def category_segment(category: str) -> str:
    """The segment whose popular list is that of a category of the catalogue.

    >>> category_segment("tea")
    'category:tea'
    """
    return f"category:{category}"


def similar_key(prefix: str, item: str) -> str:
    """The key of the list of items similar to `item`.

    >>> similar_key("shop:", "tea")
    'shop:similar:tea'
    """
    return f"{prefix}similar:{item}"


class SimilarList(NamedTuple):
    """The list of items similar to `item`, to be written at a `version`."""

    item: str
    version: int
    payload: bytes


class OnlineKeys(NamedTuple):
    """Where the online model is."""

    head: str
    whole: str


def online_keys(prefix: str) -> OnlineKeys:
    """The keys of the online model.

    >>> online_keys("shop:").head
    'shop:{online}:head'
    """
    return OnlineKeys(*(f"{prefix}{{online}}:{name}" for name in OnlineKeys._fields))


class PublishOutcome(IntEnum):
    """What the script answers that publishes an update of the online model.

    WANTS_WHOLE: Redis does not have the update before it, so that the whole model must be written first.
    """

    PUBLISHED = 1
    WANTS_WHOLE = 0
    OLDER = -1
    NO_ROOM = -3


def update_key(prefix: str, after: int) -> str:
    """The key of the update of the online model that follows the sequence `after`.

    >>> update_key("shop:", 7)
    'shop:{online}:after:7'
    """
    return f"{prefix}{{online}}:after:{after}"


RELEARNED_HEAD: Final = "head"
RELEARNED_TAKEN: Final = "taken"
"""Written by the operator `learn` once it goes on from this state."""


def relearned_key(prefix: str, request: str, part: str) -> str:
    """The key of a part of a learner's state that replaces the job's: :data:`RELEARNED_HEAD`, or a block's number.

    The head begins with the number of blocks and a colon.

    >>> relearned_key("shop:", "r1", "0")
    'shop:{online}:relearned:r1:0'
    """
    return f"{prefix}{{online}}:relearned:{request}:{part}"


UPDATE_TTL_MS: Final = 120_000
"""How long an update stays: scorers that are further behind read the whole model, which is written more often."""


class PublishedUpdate(NamedTuple):
    """The update that follows a sequence, if there is one, and the sequence of the last one, 0 for none."""

    update: bytes | None
    head: int


def decode_head(raw: bytes | None) -> int:
    """The sequence in ``{online}:head``, 0 for none.

    >>> decode_head(b"1764000000000:17"), decode_head(None)
    (17, 0)
    """
    sequence = b"" if raw is None else raw.rpartition(b":")[2]
    return int(sequence) if sequence.isdigit() else 0


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
    """The arguments of ``write_consent.lua`` for a consent change; times in ms. With `erase`, the level is none.

    `token` is the generation in which a grant counts, "" for none.
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
        """The bytes of the consent key once the consent is in force."""
        place = self.at, self.partition, self.offset
        if self.level == Level.NONE:
            return withdrawn_value(*place, self.said_at)
        return proven(consent_value(self.level, self.expires_at, *place), self.token)

    def arguments(self, tombstone_ms: int) -> tuple[Any, ...]:
        """ARGV of the script. An ended consent is a fence for another `tombstone_ms`; one without an end is kept."""
        place = self.at, self.partition, self.offset
        if self.level == Level.NONE:
            wants, ttl_ms = "erase" if self.erase else "none", tombstone_ms
            tombstone = gone_value(*place, self.said_at, self.erase)
        else:
            wants, tombstone = "grant", b""
            ttl_ms = max(0, self.expires_at - self.at) + tombstone_ms if self.expires_at else 0
        return *place, self.said_at, wants, self.value(), ttl_ms, tombstone, proof_of(self.token) if self.token else b""


class Placed(Protocol):
    """A record with a place in `consents`; `append_ts` in ms."""

    @property
    def append_ts(self) -> int: ...  # noqa: D102
    @property
    def partition(self) -> int: ...  # noqa: D102
    @property
    def offset(self) -> int: ...  # noqa: D102


class ConsentDecision(Placed, Protocol):
    """A consent change as read from its topic; times in ms. With `erase`, the level is none."""

    @property
    def pseudonym(self) -> str: ...  # noqa: D102
    @property
    def level(self) -> int: ...  # noqa: D102
    @property
    def expires_at(self) -> int: ...  # noqa: D102
    @property
    def said_at(self) -> int: ...  # noqa: D102
    @property
    def erase(self) -> bool: ...  # noqa: D102


def decision_of(change: ConsentDecision, token: str = "") -> ConsentWrite:
    """`change` in the form written to Redis; a grant counts in the generation `token`, with "" in none."""
    place = change.append_ts, change.partition, change.offset
    # A fence against older grants never expires, though purposes granted without personalisation may.
    expires_at = 0 if change.level == Level.NONE else change.expires_at
    return ConsentWrite(Level(change.level), expires_at, *place, change.said_at, change.erase, token)


def hold_arguments(at: int, partition: int, offset: int, said_at: int, tombstone_ms: int) -> tuple[Any, ...]:
    """ARGV of ``write_consent.lua`` to suspend personalisation until the job has applied the record at this place.

    Clients that record a consent change do not know the job's policy, so any change but a withdrawal may leave less
    than before. Times are in ms.
    """
    value = consent_value(Level.NONE, 0, at, partition, offset)
    return at, partition, offset, said_at, "hold", value, tombstone_ms, b"", b""


_WITHDRAWN: Final = re.compile(rb'"withdrawn":(\d+)')


def withdrawn_at(value: bytes) -> int:
    """When the user of a consent key or tombstone last withdrew, in ms; 0 if the value does not contain it.

    >>> withdrawn_at(withdrawn_value(12, 0, 3, 11)), withdrawn_at(consent_value(Level.FULL, 0, 12, 0, 3))
    (11, 0)
    """
    found = _WITHDRAWN.search(value)
    return int(found[1]) if found else 0


class Tombstone(msgspec.Struct, frozen=True, gc=False):
    """The place in `consents` of a user's last withdrawal or erasure; `append_ts` in ms.

    `said_at` is when they last withdrew, 0 if an earlier release did not write it.
    """

    append_ts: int = msgspec.field(name="at")
    partition: int
    offset: int
    erased: bool
    said_at: int = msgspec.field(name="withdrawn", default=0)


_decode_tombstone: Final = msgspec.json.Decoder(Tombstone).decode


def decode_tombstone(raw: bytes) -> Tombstone:
    """The tombstone in `raw`."""
    return _decode_tombstone(raw)


class ListWrite(NamedTuple):
    """A list to be written, at the user's `version`. `consent` is the value in Redis of the consent it was made under.

    `model` is the name of the model that made it, `arm` that of the experiment, if any. `explored` is to be remembered.
    """

    pseudonym: str
    version: int
    consent: bytes
    reason: UserReason
    ttl_ms: int
    payload: bytes
    model: str
    arm: str = ""
    explored: ExploredList | None = None


class Written(NamedTuple):
    """The responses of Redis, in the order of the requests."""

    consents: list[ConsentOutcome]
    lists: list[WriteOutcome]
    popular: RecommendationList | None

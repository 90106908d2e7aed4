"""The job's writes to Redis: consents first, then lists, one pipeline per element.

Implements :class:`udfs.operators.list_store.ListStore`.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from adapters.redis.address import OUTAGE_MAX_MS
from adapters.redis.client import Keyed, RedisClient, always
from adapters.redis.greeting import Command
from adapters.redis.replies import Remedy
from adapters.redis.scripts import PUBLISH_UPDATE, PUBLISH_WHOLE, RELINK, WRITE_CONSENT, WRITE_LIST, WRITE_POPULAR
from schemas.errors import StoreFull
from schemas.lists import RecommendationList, decode_list
from schemas.store import (
    ALL,
    RELEARNED_TAKEN,
    UPDATE_TTL_MS,
    ConsentDecision,
    ConsentOutcome,
    ListWrite,
    PublishedUpdate,
    PublishOutcome,
    SimilarList,
    Tombstone,
    WriteOutcome,
    Written,
    all_user_keys,
    decision_of,
    decode_head,
    decode_tombstone,
    online_keys,
    past_key,
    popular_key,
    proven,
    relearned_key,
    similar_key,
    update_key,
    user_keys,
)

_FULL: Final = (Remedy.MAKE_ROOM,)
"""Handled by the store: when Redis is full, withdrawals succeed and lists fail."""
logger = logging.getLogger(__name__)


class RedisStore:
    """A store of lists in Redis 6.2 or later, or Valkey. Withdrawals are kept for `tombstone_ms`.

    Also raises :class:`StoreMisconfigured` if someone must fix something.
    """

    def __init__(self, client: RedisClient, epoch: int, tombstone_ms: int, outage_max_ms: int = OUTAGE_MAX_MS) -> None:
        self.client: Final = client
        self.outage_max_ms = outage_max_ms
        self._tombstone_ms = tombstone_ms
        self._prefix = client.prefix
        self._epoch = epoch
        self._full = False

    def current_generation(self) -> str:
        """See :class:`ListStore`."""
        return self.client.renew_generation()

    def write(
        self, consents: Sequence[ConsentDecision], lists: Sequence[ListWrite], want_popular: bool, token: str
    ) -> Written:
        """See :class:`ListStore`. One round trip."""
        commands: list[Keyed] = [self._consent_command(change, token) for change in consents]
        commands += [self._list_command(write, token) for write in lists]
        if want_popular:
            key = popular_key(self._prefix, ALL)
            commands.append((key, ("GET", key)))
        answers = self.client.run(always(commands), durable=bool(consents), leave=_FULL)
        lists_at, popular_at = len(consents), len(consents) + len(lists)
        if any(isinstance(answer, Exception) for answer in answers[:lists_at]):
            raise StoreFull("Redis has reached maxmemory and accepts no consents")
        written = [_outcome(answer) for answer in answers[lists_at:popular_at]]
        self._note_room(WriteOutcome.NO_ROOM in written)
        raw_popular = answers[popular_at] if want_popular else None
        return Written([ConsentOutcome(answer) for answer in answers[:lists_at]], written, _popular(raw_popular))

    def forget(self, pseudonyms: Sequence[str]) -> None:
        """See :class:`ListStore`."""
        keys = [user_keys(self._prefix, pseudonym)[0] for pseudonym in pseudonyms]
        self.client.run(always([(key, ("DEL", key)) for key in keys]))

    def tombstones(self, pseudonyms: Sequence[str]) -> dict[str, Tombstone]:
        """See :class:`ListStore`. One round trip."""
        commands: list[Keyed] = []
        for pseudonym in pseudonyms:
            gone, past = user_keys(self._prefix, pseudonym)[2], past_key(self._prefix, pseudonym)
            commands.append((gone, ("MGET", gone, past)))
        found = zip(pseudonyms, self.client.run(always(commands)), strict=True)
        return {pseudonym: decode_tombstone(gone or past) for pseudonym, (gone, past) in found if gone or past}

    def relink(self, links: Mapping[str, str]) -> None:
        """See :class:`ListStore`. Three round trips: the two pseudonyms of a user may lie in different slots."""
        before = [self._keys(previous) for previous in links.values()]
        reads: list[Keyed] = [(k, command) for keys in before for k in keys for command in (("GET", k), ("PTTL", k))]
        raw = [b"" if part is None else part for part in self.client.run(always(reads))]
        size = 2 * 4  # a value and a remaining life per key
        moves: list[Keyed] = []
        for place, current in enumerate(links):
            keys = self._keys(current)
            moves.append((keys[0], RELINK(keys, *raw[size * place : size * (place + 1)])))
        self.client.run(always(moves), durable=True)
        self.client.run(always([(keys[0], ("DEL", *keys)) for keys in before]))

    def write_popular(self, segment: str, epoch: int, version: int, ttl_ms: int, payload: bytes) -> WriteOutcome:
        """See :class:`ListStore`."""
        key = popular_key(self._prefix, segment)
        command = WRITE_POPULAR((key,), epoch, version, ttl_ms, payload)
        [answer] = self.client.run(always([(key, command)]), leave=_FULL)
        return _outcome(answer)

    def write_similar(self, lists: Sequence[SimilarList], ttl_ms: int) -> list[WriteOutcome]:
        """See :class:`ListStore`. One round trip."""
        commands: list[Keyed] = []
        for one in lists:
            key = similar_key(self._prefix, one.item)
            commands.append((key, WRITE_POPULAR((key,), self._epoch, one.version, ttl_ms, one.payload)))
        return [_outcome(answer) for answer in self.client.run(always(commands), leave=_FULL)]

    def publish_update(self, sequence: int, after: int, update: bytes) -> PublishOutcome:
        """See :class:`ListStore`."""
        keys = (*online_keys(self._prefix), update_key(self._prefix, after))
        return self._published(PUBLISH_UPDATE(keys, self._epoch, sequence, after, UPDATE_TTL_MS, update))

    def publish_whole(self, sequence: int, whole: bytes) -> PublishOutcome:
        """See :class:`ListStore`."""
        return self._published(PUBLISH_WHOLE(online_keys(self._prefix), self._epoch, sequence, whole))

    def _published(self, command: Command) -> PublishOutcome:
        [answer] = self.client.run(always([(online_keys(self._prefix).head, command)]), leave=_FULL)
        return PublishOutcome.NO_ROOM if isinstance(answer, Exception) else PublishOutcome(answer)

    def update_after(self, sequence: int) -> PublishedUpdate:
        """See :class:`ListStore`. One round trip."""
        head = online_keys(self._prefix).head
        [(update, last)] = self.client.run(always([(head, ("MGET", update_key(self._prefix, sequence), head))]))
        return PublishedUpdate(update, decode_head(last))

    def whole_model(self) -> bytes | None:
        """See :class:`ListStore`."""
        return self._value(online_keys(self._prefix).whole)

    def relearned(self, request: str, part: str) -> bytes | None:
        """See :class:`ListStore`."""
        return self._value(relearned_key(self._prefix, request, part))

    def _value(self, key: str) -> bytes | None:
        [found] = self.client.run(always([(key, ("GET", key))]))
        return None if found is None else bytes(found)

    def confirm_relearned(self, request: str) -> None:
        """See :class:`ListStore`."""
        key = relearned_key(self._prefix, request, RELEARNED_TAKEN)
        self.client.run(always([(key, ("SET", key, b"1", "PX", UPDATE_TTL_MS))]), leave=_FULL)

    def _note_room(self, full: bool) -> None:
        """Log once that lists are frozen, and once that they are updated again. Withdrawals always succeed."""
        if full and not self._full:
            logger.error(
                "Redis has reached maxmemory: lists stay as they are until it has room (freshet_lists_total, no_room)"
            )
        elif self._full and not full:
            logger.warning("Redis has room for lists again")
        self._full = full

    def _keys(self, pseudonym: str) -> tuple[str, str, str, str]:
        return all_user_keys(self._prefix, pseudonym)

    def _consent_command(self, change: ConsentDecision, token: str) -> Keyed:
        keys = self._keys(change.pseudonym)
        return keys[0], WRITE_CONSENT(keys, *decision_of(change, token).arguments(self._tombstone_ms))

    def _list_command(self, write: ListWrite, token: str) -> Keyed:
        keys = user_keys(self._prefix, write.pseudonym)
        made = self._epoch, write.version, write.ttl_ms, proven(write.consent, token), write.payload
        return keys[0], WRITE_LIST(keys, *made)


def _outcome(answer: Any) -> WriteOutcome:
    """The outcome of a list write; a remaining error reply means that there is no room."""
    return WriteOutcome.NO_ROOM if isinstance(answer, Exception) else WriteOutcome(answer)


def _popular(raw: bytes | None) -> RecommendationList | None:
    """Decode a popular list; None if it is unreadable, because it is rewritten within a second."""
    try:
        return None if raw is None else decode_list(raw)
    except msgspec.DecodeError:
        return None

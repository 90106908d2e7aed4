"""Access to Redis for the operator, with retries; caches the popular items."""

import time
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Final, NamedTuple, TypeVar

from schemas.consents import Level
from schemas.store import ConsentOutcome, ListWrite, Tombstone, Written
from udfs.account import Account
from udfs.elements import ConsentRecord
from udfs.online_model import OnlineModel
from udfs.operators.cancellation import interrupted
from udfs.operators.gate import SilentStore
from udfs.operators.list_store import ListStore
from udfs.operators.patience import Patience
from udfs.personalise import Changes, Users, is_fenced, is_granted_alone, undo_refused
from udfs.ranking import PopularItems

Answer = TypeVar("Answer")
POPULAR_REFRESH_MS: Final = 1_000


class BucketLists(NamedTuple):
    """What a bucket has to write. Its grants count in the generation `token`; refused ones are undone in the others."""

    changes: Changes
    lists: list[ListWrite]
    users: Users
    account: Account
    token: str


class StorePart(NamedTuple):
    """A bucket's part of a write."""

    consents: Sequence[ConsentRecord]
    lists: list[ListWrite]
    token: str


class StoreKeeper:
    """Writes consents and lists. `fallback` serves until popular lists exist.

    Each failed call calls `count_retry`, each answered one `note_s` with the seconds that it took.
    """

    def __init__(
        self,
        store: ListStore,
        fallback: PopularItems,
        count_retry: Callable[[], None],
        note_s: Callable[[float], None],
    ) -> None:
        self._store: ListStore = store
        self._fallback, self._count_retry, self._note_s = fallback, count_retry, note_s
        self._writing, self._silent = store, SilentStore(store)
        self._wait = Patience(store.outage_max_ms, interrupted)
        self.popular, self._popular_at_ms = fallback, 0

    def _patiently(self, ask: Callable[[], Answer]) -> Answer:
        def timed() -> Answer:
            begun_s = time.perf_counter()
            answer = ask()
            self._note_s(time.perf_counter() - begun_s)
            return answer

        return self._wait(timed, self._count_retry)

    def begin(self, writes: bool) -> None:
        """Before an element or a timer: whether what follows from it is written, or only read."""
        self._store = self._writing if writes else self._silent

    def generation(self) -> str:
        """Redis' current generation."""
        return self._patiently(self._store.current_generation)

    def relink(self, moved: Mapping[str, str]) -> None:
        """Move the keys of renamed users; `moved` is current → previous pseudonym."""
        self._patiently(lambda: self._store.relink(moved))

    def tombstones(self, names: Sequence[str]) -> Mapping[str, Tombstone]:
        """The tombstones of `names` that have one."""
        return self._patiently(lambda: self._store.tombstones(names))

    def forget(self, pseudonyms: Sequence[str]) -> None:
        """Delete the lists of users whose profiles have ended."""
        self._patiently(lambda: self._store.forget(pseudonyms))

    def follow(self, model: OnlineModel) -> None:
        """Bring `model` up to date with what the learner has published."""
        self._patiently(lambda: model.follow(self._store))

    def write_all(self, buckets: Sequence[BucketLists], now_ms: int) -> list[tuple[list[ListWrite], Written]]:
        """Write consents, then lists, of all `buckets` together.

        Returns, for each, the lists that were written or refused, and Redis' replies. Lists of users whose consent
        changes wait for Redis' reply, because Redis may know of a later withdrawal.
        """
        parts, waiting = [], []
        for bucket in buckets:
            changing = {change.pseudonym for change in bucket.changes.consents}
            waiting.append([write for write in bucket.lists if write.pseudonym in changing])
            lists = [write for write in bucket.lists if write.pseudonym not in changing]
            parts.append(StorePart(bucket.changes.consents, lists, bucket.token))
        written = self._write_parts(parts, now_ms)
        for number, bucket in enumerate(buckets):
            if bucket.changes.consents:
                written[number] = self._refuse_fenced(bucket.changes.consents, written[number])
                refused = refused_by_store(bucket.changes, written[number])
                undone = undo_refused(bucket.users, refused, bucket.account, bucket.changes)
                waiting[number] = [write for write in waiting[number] if write.pseudonym not in undone]
        if any(waiting):
            later = [StorePart([], lists, bucket.token) for bucket, lists in zip(buckets, waiting, strict=True)]
            for number, then in enumerate(self._write_parts(later, now_ms)):
                parts[number].lists.extend(waiting[number])
                written[number] = written[number]._replace(lists=[*written[number].lists, *then.lists])
        return [(part.lists, reply) for part, reply in zip(parts, written, strict=True)]

    def _write_parts(self, parts: Sequence[StorePart], now_ms: int) -> list[Written]:
        """Write `parts` in one round trip, or in one for each generation that they are in; returns their replies."""
        replies: dict[int, Written] = {}
        for token in dict.fromkeys(part.token for part in parts):
            mine = [number for number, part in enumerate(parts) if part.token == token]
            consents = [change for number in mine for change in parts[number].consents]
            lists = [write for number in mine for write in parts[number].lists]
            written = self.write(consents, lists, now_ms, token)
            of_consents, of_lists = iter(written.consents), iter(written.lists)
            for number in mine:
                replies[number] = written._replace(
                    consents=list(islice(of_consents, len(parts[number].consents))),
                    lists=list(islice(of_lists, len(parts[number].lists))),
                )
        return [replies[number] for number in range(len(parts))]

    def _refuse_fenced(self, consents: Sequence[ConsentRecord], written: Written) -> Written:
        """Apply tombstones to grants of purposes without personalisation, which Redis itself cannot refuse.

        To Redis such a grant looks like a withdrawal, which it always accepts; a later refusal of everything overrides
        it.
        """
        alone = [change.pseudonym for change in consents if is_granted_alone(change)]
        if not alone:
            return written
        found = self.tombstones(alone)
        outcomes = [
            ConsentOutcome.REFUSED
            if is_granted_alone(change) and change.pseudonym in found and is_fenced(change, found[change.pseudonym])
            else outcome
            for change, outcome in zip(consents, written.consents, strict=True)
        ]
        return written._replace(consents=outcomes)

    def write(self, consents: Sequence[ConsentRecord], lists: Sequence[ListWrite], now_ms: int, token: str) -> Written:
        """Write in one round trip; once a second this also reads `popular:all`, for filling up lists.

        Grants count in the generation `token`, which is not the current one until the bucket has caught up.
        """
        want_popular = now_ms - self._popular_at_ms >= POPULAR_REFRESH_MS
        written = self._patiently(lambda: self._store.write(consents, lists, want_popular, token))
        if want_popular:
            self._popular_at_ms = now_ms
            popular = PopularItems.of(written.popular) if written.popular else PopularItems()
            self.popular = popular.followed_by(self._fallback)
        return written


def refused_by_store(changes: Changes, written: Written) -> list[ConsentRecord]:
    """The grants that Redis refused. Leaves out users with a later withdrawal in the element: they started over."""
    refused: dict[str, ConsentRecord] = {}
    for change, outcome in zip(changes.consents, written.consents, strict=True):
        if outcome == ConsentOutcome.REFUSED:
            refused[change.pseudonym] = change
        elif change.level == Level.NONE:
            refused.pop(change.pseudonym, None)
    return list(refused.values())

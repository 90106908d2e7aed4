"""What the operator asks of Redis, patiently, and what it knows is popular."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

from schemas.consents import Level
from schemas.store import ConsentOutcome, ListWrite, Tombstone, Written
from udfs.account import Account
from udfs.elements import ConsentRecord
from udfs.operators.cancellation import interrupted
from udfs.operators.list_store import ListStore
from udfs.operators.patience import Patience
from udfs.personalise import Changes, Users, is_fenced, is_granted_alone, withdraw_again
from udfs.ranking import PopularItems

Answer = TypeVar("Answer")
POPULAR_REFRESH_MS: Final = 1_000


class StoreKeeper:
    """Writes consents and lists. `fallback` is popular until popular lists exist, `retries` counts."""

    def __init__(self, store: ListStore, fallback: PopularItems, retries: Any) -> None:
        self._store, self._fallback, self._retries = store, fallback, retries
        self._wait = Patience(store.outage_max_ms, interrupted)
        self.popular, self._popular_at_ms = fallback, 0

    def _patiently(self, ask: Callable[[], Answer]) -> Answer:
        return self._wait(ask, self._retries.inc)

    def generation(self) -> str:
        """The generation in force."""
        return self._patiently(self._store.in_force)

    def relink(self, moved: Mapping[str, str]) -> None:
        """Move what stands of users, given as current → previous pseudonym."""
        self._patiently(lambda: self._store.relink(moved))

    def tombstones(self, names: Sequence[str]) -> Mapping[str, Tombstone]:
        """Of those of `names` who have one."""
        return self._patiently(lambda: self._store.tombstones(names))

    def forget(self, pseudonyms: Sequence[str]) -> None:
        """Take away what stands of users whose profile has ended."""
        self._patiently(lambda: self._store.forget(pseudonyms))

    def write_all(
        self, changes: Changes, lists: list[ListWrite], users: Users, account: Account, now_ms: int, token: str
    ) -> tuple[list[ListWrite], Written]:
        """Write consents, then lists; returns the lists that were written, or tried, and what Redis said.

        Lists of users whose consent changes wait for what Redis says of it: it may know better.
        """
        if not changes.consents:
            return lists, self.write([], lists, now_ms, token)
        changing = {change.pseudonym for change in changes.consents}
        waiting = [write for write in lists if write.pseudonym in changing]
        lists = [write for write in lists if write.pseudonym not in changing]
        written = self._judged(changes.consents, self.write(changes.consents, lists, now_ms, token))
        undone = withdraw_again(users, refused_by_store(changes, written), account, changes)
        waiting = [write for write in waiting if write.pseudonym not in undone]
        if waiting:
            then = self.write([], waiting, now_ms, token)
            lists, written = lists + waiting, written._replace(lists=[*written.lists, *then.lists])
        return lists, written

    def _judged(self, consents: Sequence[ConsentRecord], written: Written) -> Written:
        """What Redis said, and of purposes that are granted without personalisation what its tombstones say.

        To Redis such a consent is a withdrawal, which nothing refuses; a later no to everything refuses the purposes.
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
        """One round trip; `popular:all` comes along once a second, for filling lists up.

        Grants count in the generation `token`, which is not the one in force where the bucket has not caught up.
        """
        want_popular = now_ms - self._popular_at_ms >= POPULAR_REFRESH_MS
        written = self._patiently(lambda: self._store.write(consents, lists, want_popular, token))
        if want_popular:
            self._popular_at_ms = now_ms
            self.popular = PopularItems.of(written.popular) if written.popular else self._fallback
        return written


def refused_by_store(changes: Changes, written: Written) -> list[ConsentRecord]:
    """The grants that Redis refused, but for those of users who said no behind them in the element: that began anew."""
    refused: dict[str, ConsentRecord] = {}
    for change, outcome in zip(changes.consents, written.consents, strict=True):
        if outcome == ConsentOutcome.REFUSED:
            refused[change.pseudonym] = change
        elif change.level == Level.NONE:
            refused.pop(change.pseudonym, None)
    return list(refused.values())

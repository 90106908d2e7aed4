"""What becomes due for a user without any event: a session ends, a consent expires, a profile idles, a list ages.

Each bucket keeps a due index (:class:`DueIndex`): slots of one second, each with a processing-time timer and at most
so many users, so that what is due is worked off at a bounded rate. A user stands in one slot and is looked at again
only when it comes, so that events cost nothing here.
"""

from collections.abc import Callable, Iterable
from enum import IntEnum
from typing import Final, Protocol

import msgspec

from schemas.consents import Level
from schemas.topics import DAY_MS, MINUTE_MS
from udfs.consent import withdraw
from udfs.profile import AtLeastOne, ProfileBounds
from udfs.state import UserState

REFRESH_AT: Final = 0.8
"""A list is written again when this much of its life has passed."""


class RefreshSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which idle users' lists are kept fresh, and how fast at the most. Times in ms.

    `rebuilt_per_second` bounds how many users' consents and lists are written again after Redis has lost data.
    """

    list_ttl_ms: AtLeastOne = DAY_MS
    active_within_ms: AtLeastOne = 7 * DAY_MS
    users_per_second: AtLeastOne = 200
    rebuilt_per_second: AtLeastOne = 4_000


class Due(IntEnum):
    """What to do for a user whose slot has come.

    FORGET: nothing is kept any more, the list is to be deleted. EXPIRED: likewise, because the consent has expired.
    """

    NOTHING = 0
    REFRESH = 1
    FORGET = 2
    EXPIRED = 3


def next_due_ms(state: UserState, now_ms: int, bounds: ProfileBounds, refresh: RefreshSettings) -> int | None:
    """When to look at the user again, in ms; None where nothing is kept that could become due."""
    profile = state.profile
    if profile is None:
        return state.expires_at or None if state.level != Level.NONE else None
    active_at = profile.active_at or now_ms
    if state.level == Level.SESSION:
        due = active_at + bounds.session_gap_ms
    elif now_ms - active_at <= refresh.active_within_ms:
        due = now_ms + int(REFRESH_AT * refresh.list_ttl_ms)
    else:
        due = active_at + bounds.idle_profile_ttl_ms
    return min(due, state.expires_at) if state.expires_at else due


def when_due(state: UserState, now_ms: int, bounds: ProfileBounds, refresh: RefreshSettings) -> Due:
    """Decide, and change `state` accordingly; the caller writes, deletes and indexes again."""
    if state.level != Level.NONE and 0 < state.expires_at <= now_ms:
        withdraw(state)
        return Due.EXPIRED
    profile = state.profile
    if profile is None:
        return Due.NOTHING
    idle_ms = now_ms - profile.active_at
    limit_ms = bounds.session_gap_ms if state.level == Level.SESSION else bounds.idle_profile_ttl_ms
    if idle_ms >= limit_ms:
        state.profile = None
        state.version += 1
        return Due.FORGET
    if state.level == Level.FULL and idle_ms <= refresh.active_within_ms:
        return Due.REFRESH
    return Due.NOTHING


SLOT_MS: Final = 1_000


class Pages(Protocol):
    """Keyed state of one bucket as the due index needs it: text → bytes. Flink's MapState is one."""

    def get(self, key: str) -> bytes | None:
        """The value of `key`, or None."""
        ...

    def put(self, key: str, value: bytes) -> None:
        """Set the value of `key`."""
        ...

    def remove(self, key: str) -> None:
        """Remove `key`, which exists."""
        ...

    def items(self) -> Iterable[tuple[str, bytes]]:
        """All keys with their values."""
        ...


class DueIndex:
    """Slots of users in keyed state. `slot_users_max` bounds how many users one second may bring.

    What is due within a minute fills the slots of the next one in turn, so a minute has one counter.
    """

    def __init__(self, pages: Pages, slot_users_max: int) -> None:
        self._pages = pages
        self._slot_users_max = slot_users_max

    def add(self, users: dict[str, UserState], due_of: Callable[[UserState], int | None]) -> set[int]:
        """Enter those of `users` that become due earlier than they stand; returns the slots that need a timer."""
        by_minute: dict[int, list[str]] = {}
        for pseudonym, state in users.items():
            due = due_of(state)
            if due is not None:
                minute = -(-due // MINUTE_MS) * MINUTE_MS
                if not 0 < state.due_slot < minute + MINUTE_MS:
                    by_minute.setdefault(minute, []).append(pseudonym)
        slots: set[int] = set()
        for minute, pseudonyms in by_minute.items():
            slots |= self._fill(minute, pseudonyms, users)
        return slots

    def _fill(self, minute: int, pseudonyms: list[str], users: dict[str, UserState]) -> set[int]:
        """A minute that is full passes the rest on to the next one."""
        size, slots = self._slot_users_max, set()
        while pseudonyms:
            entered = int(self._pages.get(f"m{minute}") or b"0")
            room = MINUTE_MS // SLOT_MS * size - entered
            # Who stands before the first free slot would only come later by entering again.
            first_free = minute + entered // size * SLOT_MS
            entering = [p for p in pseudonyms if not 0 < users[p].due_slot <= first_free]
            entering, pseudonyms = entering[:room], entering[room:]
            for place, pseudonym in enumerate(entering, start=entered):
                users[pseudonym].due_slot = minute + place // size * SLOT_MS
            slots |= self._put(entering, users)
            if entering:
                self._pages.put(f"m{minute}", b"%d" % (entered + len(entering)))
            minute += MINUTE_MS
        return slots

    def _put(self, pseudonyms: list[str], users: dict[str, UserState]) -> set[int]:
        by_slot: dict[int, list[str]] = {}
        for pseudonym in pseudonyms:
            by_slot.setdefault(users[pseudonym].due_slot, []).append(pseudonym)
        for slot, its_pseudonyms in by_slot.items():
            known = self._pages.get(str(slot))
            page = ("\n".join(its_pseudonyms)).encode()
            self._pages.put(str(slot), page if known is None else known + b"\n" + page)
        return set(by_slot)

    def purge(self, pseudonyms: set[str]) -> None:
        """Take users out of all slots, also of those in which they stand no more. Reads the whole index."""
        for key, page in list(self._pages.items()):
            if not key.startswith("m"):
                stand_here = page.decode().split("\n")
                stay = [pseudonym for pseudonym in stand_here if pseudonym not in pseudonyms]
                if not stay:
                    self._pages.remove(key)
                elif len(stay) < len(stand_here):
                    self._pages.put(key, "\n".join(stay).encode())

    def take(self, slot: int) -> list[str]:
        """The users that stand in `slot`, which is then gone; with a minute's first slot goes its counter."""
        if slot % MINUTE_MS == 0 and self._pages.get(f"m{slot}") is not None:
            self._pages.remove(f"m{slot}")
        page = self._pages.get(str(slot))
        if page is None:
            return []
        self._pages.remove(str(slot))
        return page.decode().split("\n")

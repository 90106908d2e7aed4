"""The due index: when each user of a bucket comes due, in slots of one second, in keyed state.

A user is in one slot, `UserState.due_slot`, and their name is only in the page of that slot, so erasing or renaming a
user touches one page. Earlier releases kept the pages in `due-v1` and left a name behind when its user moved to an
earlier slot. These `older` pages are searched completely for erased users until they have been migrated.

After a downtime the timers of many slots fire at once. The slots are deferred and processed in order, a few at a time;
their users stay in them until then.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from itertools import islice
from typing import Final, NamedTuple, Protocol

from schemas.topics import MINUTE_MS
from udfs.state import UserState

SLOT_MS: Final = 1_000
WAITING_TOGETHER: Final = 100
"""Deferred slots are stored in chunks of this many, so that a long queue is not rewritten for each slot."""
OLDER_PAGES_AT_ONCE: Final = 20
"""How many older pages are migrated at a time: with 50 users each, about 10 ms."""


class Pages(Protocol):
    """The keyed state of one bucket as the due index needs it: text → bytes. Implemented by Flink's MapState."""

    def get(self, key: str) -> bytes | None:
        """The value of `key`, or None."""
        ...

    def put(self, key: str, value: bytes) -> None:
        """Set the value of `key`."""
        ...

    def remove(self, key: str) -> None:
        """Remove an existing `key`."""
        ...

    def keys(self) -> Iterable[str]:
        """All keys."""
        ...

    def items(self) -> Iterable[tuple[str, bytes]]:
        """All keys with their values."""
        ...

    def is_empty(self) -> bool:
        """Whether there is no key."""
        ...


class Entered(NamedTuple):
    """Pending writes for users entering the index: `pages` and counters by key, and a timer for each of `slots`."""

    pages: dict[str, bytes]
    slots: set[int]


class DueIndex:
    """Slots of users in keyed state. `slot_users_max` limits the users per second.

    Whatever is due within a minute fills the slots of the next minute in turn. So a minute needs one counter,
    `m<minute>`: how many users have entered it and, if it is full, which minute to try next.
    """

    def __init__(self, pages: Pages, slot_users_max: int, older: Pages) -> None:
        self._pages = pages
        self._slot_users_max = slot_users_max
        self._older = older

    def add(self, users: dict[str, UserState], due_of: Callable[[UserState], int | None]) -> Entered:
        """Find slots for those of `users` that come due earlier than their slot; returns what to :meth:`put`.

        Only reads state. Users who were in a slot before must :meth:`leave` it.
        """
        by_minute: dict[int, list[str]] = {}
        for pseudonym, state in users.items():
            due = due_of(state)
            if due is not None:
                minute = -(-due // MINUTE_MS) * MINUTE_MS
                if not 0 < state.due_slot < minute + MINUTE_MS:
                    by_minute.setdefault(minute, []).append(pseudonym)
        pages: dict[str, bytes] = {}
        by_slot: dict[int, list[str]] = {}
        for minute, pseudonyms in by_minute.items():
            for pseudonym in self._fill(minute, pseudonyms, users, pages):
                by_slot.setdefault(users[pseudonym].due_slot, []).append(pseudonym)
        pages |= {str(slot): self._with(str(slot), names) for slot, names in by_slot.items()}
        return Entered(pages, set(by_slot))

    def _fill(
        self, minute: int, pseudonyms: list[str], users: dict[str, UserState], counters: dict[str, bytes]
    ) -> list[str]:
        """Assign slots to users; returns the users that got one.

        A full minute passes the rest on to the next minute with room, and remembers which one that was.
        """
        size, first, last = self._slot_users_max, minute, minute
        given: list[str] = []
        while pseudonyms:
            entered, onward = self._counted(minute, counters)
            room = max(0, MINUTE_MS // SLOT_MS * size - entered)
            # A user with a slot before the first free one would only be due later.
            first_free = minute + entered // size * SLOT_MS
            entering = [p for p in pseudonyms if not 0 < users[p].due_slot <= first_free]
            entering, pseudonyms = entering[:room], entering[room:]
            for place, pseudonym in enumerate(entering, start=entered):
                users[pseudonym].due_slot = minute + place // size * SLOT_MS
            if entering:
                counters[f"m{minute}"] = b"%d %d" % (entered + len(entering), onward)
            given += entering
            last, minute = minute, onward
        entered, onward = self._counted(first, counters)
        if last > onward:
            counters[f"m{first}"] = b"%d %d" % (entered, last)
        return given

    def _counted(self, minute: int, counters: dict[str, bytes]) -> tuple[int, int]:
        """How many users have entered a minute, and which minute to try when it is full."""
        key = f"m{minute}"
        counter = counters.get(key) or self._pages.get(key) or self._older.get(key) or b"0"
        entered, _, onward = counter.partition(b" ")
        return int(entered), int(onward or minute + MINUTE_MS)

    def _with(self, key: str, pseudonyms: list[str]) -> bytes:
        """The page of `key` with these users appended."""
        known, page = self._pages.get(key), "\n".join(pseudonyms).encode()
        return page if known is None else known + b"\n" + page

    def put(self, entered: Entered) -> None:
        """Write entering users to state."""
        for key, page in entered.pages.items():
            self._pages.put(key, page)

    def leave(self, left: Mapping[int, Collection[str]]) -> None:
        """Remove users from their former slots; `left` is by slot. Touches one page per slot."""
        for slot, pseudonyms in left.items():
            _take_out(self._pages, str(slot), pseudonyms)
            _take_out(self._older, str(slot), pseudonyms)

    def purge_older(self, pseudonyms: Collection[str]) -> None:
        """Remove users from all older pages, including those of former slots. Reads all of these pages."""
        if not self._older.is_empty():
            for key in [key for key in self._older.keys() if not key.startswith("m")]:  # noqa: SIM118
                _take_out(self._older, key, pseudonyms)

    def move_older(self, slot_of: Callable[[str], int]) -> None:
        """Migrate some older pages, without users who are in another slot; `slot_of` returns a user's slot."""
        for key in list(islice(self._older.keys(), OLDER_PAGES_AT_ONCE)):
            page = self._older.get(key) or b""
            self._older.remove(key)
            if not key.startswith("m"):
                here = [name for name in dict.fromkeys(_names(page)) if slot_of(name) == int(key)]
                if here:
                    self._pages.put(key, self._with(key, here))
            elif self._pages.get(key) is None:
                self._pages.put(key, page)

    def take(self, slot: int) -> list[str]:
        """Remove `slot` and return its users. A minute's first slot also removes the minute's counter."""
        if slot % MINUTE_MS == 0:
            self._pop(f"m{slot}")
        return list(dict.fromkeys(name for page in self._pop(str(slot)) for name in _names(page)))

    def is_free(self, slot: int) -> bool:
        """Whether `slot` is empty."""
        return self._pages.get(str(slot)) is None and self._older.get(str(slot)) is None

    def defer(self, slot: int) -> None:
        """Queue a slot whose timer has fired behind the slots already deferred."""
        first, last = self._waiting() or (0, 0)
        chunk = self._pages.get(f"w{last}")
        if chunk is not None and chunk.count(b" ") + 1 >= WAITING_TOGETHER:
            last, chunk = last + 1, None
        self._pages.put(f"w{last}", b"%d" % slot if chunk is None else chunk + b" %d" % slot)
        self._pages.put("w", b"%d %d" % (first, last))

    def has_deferred(self) -> bool:
        """Whether any slots are deferred."""
        return self._waiting() is not None

    def take_deferred(self, slots_max: int) -> list[int]:
        """Remove the next deferred slots from the queue, in order, and return them."""
        waiting = self._waiting()
        if waiting is None or slots_max <= 0:
            return []
        first, last = waiting
        slots = (self._pages.get(f"w{first}") or b"").split()
        if slots[slots_max:]:
            self._pages.put(f"w{first}", b" ".join(slots[slots_max:]))
        else:
            self._pages.remove(f"w{first}")
            if first < last:
                self._pages.put("w", b"%d %d" % (first + 1, last))
            else:
                self._pages.remove("w")
        return [int(slot) for slot in slots[:slots_max]]

    def _waiting(self) -> tuple[int, int] | None:
        """The numbers of the first and the last chunk of deferred slots."""
        raw = self._pages.get("w")
        if raw is None:
            return None
        first, last = raw.split()
        return int(first), int(last)

    def _pop(self, key: str) -> list[bytes]:
        popped = []
        for pages in (self._pages, self._older):
            value = pages.get(key)
            if value is not None:
                pages.remove(key)
                popped.append(value)
        return popped


def _names(page: bytes) -> list[str]:
    return page.decode().split("\n")


def _take_out(pages: Pages, key: str, pseudonyms: Collection[str]) -> None:
    page = pages.get(key)
    if page is None:
        return
    stand_here = _names(page)
    stay = [name for name in stand_here if name not in pseudonyms]
    if not stay:
        pages.remove(key)
    elif len(stay) < len(stand_here):
        pages.put(key, "\n".join(stay).encode())

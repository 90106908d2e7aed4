"""The due index: when each user of a bucket comes due, in slots of one second, in keyed state.

A user is in one slot, `UserState.due_slot`, and their name in the page of that slot and in no other, so that
whoever is erased or renamed costs one page. Releases that kept the pages in `due-v1` left names behind where a user had
moved to an earlier slot: those pages are `older`, searched whole for the erased until they have been moved over.

After a downtime the timers of many slots come at once. They are put off and worked off in their order, a few at a time;
whoever is in such a slot stays there.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from itertools import islice
from typing import Final, NamedTuple, Protocol

from schemas.topics import MINUTE_MS
from udfs.state import UserState

SLOT_MS: Final = 1_000
WAITING_TOGETHER: Final = 100
"""Slots that wait stand in chunks of so many, so that a long queue is not written anew for each."""
OLDER_PAGES_AT_ONCE: Final = 20
"""How many older pages are moved over at a time: of 50 users each, some 10 ms."""


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
    """What is to be put for users who enter: `pages` and counters by key, and a timer for each of `slots`."""

    pages: dict[str, bytes]
    slots: set[int]


class DueIndex:
    """Slots of users in keyed state. `slot_users_max` bounds how many users one second may bring.

    What is due within a minute fills the slots of the next one in turn, so a minute has one counter, `m<minute>`: how
    many were entered, and the minute to go on to where it is full.
    """

    def __init__(self, pages: Pages, slot_users_max: int, older: Pages) -> None:
        self._pages = pages
        self._slot_users_max = slot_users_max
        self._older = older

    def add(self, users: dict[str, UserState], due_of: Callable[[UserState], int | None]) -> Entered:
        """Let those of `users` that become due earlier stand there; what to :meth:`put` for that.

        State is only read. Who stood in a slot before is to :meth:`leave` it.
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
        """Give users their slots; gives who gets one.

        A minute that is full passes the rest on to the next one that is not, and remembers which that was.
        """
        size, first, last = self._slot_users_max, minute, minute
        given: list[str] = []
        while pseudonyms:
            entered, onward = self._counted(minute, counters)
            room = max(0, MINUTE_MS // SLOT_MS * size - entered)
            # Who stands before the first free slot would only come later by entering again.
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
        """How many users were entered into a minute, and to which one it passes on."""
        key = f"m{minute}"
        counter = counters.get(key) or self._pages.get(key) or self._older.get(key) or b"0"
        entered, _, onward = counter.partition(b" ")
        return int(entered), int(onward or minute + MINUTE_MS)

    def _with(self, key: str, pseudonyms: list[str]) -> bytes:
        """The page of `key` with these users behind those who stand there."""
        known, page = self._pages.get(key), "\n".join(pseudonyms).encode()
        return page if known is None else known + b"\n" + page

    def put(self, entered: Entered) -> None:
        """Put into state who enters."""
        for key, page in entered.pages.items():
            self._pages.put(key, page)

    def leave(self, left: Mapping[int, Collection[str]]) -> None:
        """Take users out of the slots in which they stood: `left` has them by slot. One page a slot."""
        for slot, pseudonyms in left.items():
            _take_out(self._pages, str(slot), pseudonyms)
            _take_out(self._older, str(slot), pseudonyms)

    def purge_older(self, pseudonyms: Collection[str]) -> None:
        """Take users out of all older pages, also of those in which they stand no more. Reads all of them."""
        if not self._older.is_empty():
            for key in [key for key in self._older.keys() if not key.startswith("m")]:  # noqa: SIM118
                _take_out(self._older, key, pseudonyms)

    def move_older(self, slot_of: Callable[[str], int]) -> None:
        """Move some older pages over, without those who stand elsewhere: `slot_of` says in which slot a user stands."""
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
        """The users that are in `slot`, which is then gone; with a minute's first slot goes its counter."""
        if slot % MINUTE_MS == 0:
            self._pop(f"m{slot}")
        return list(dict.fromkeys(name for page in self._pop(str(slot)) for name in _names(page)))

    def is_free(self, slot: int) -> bool:
        """Whether nobody is in `slot`."""
        return self._pages.get(str(slot)) is None and self._older.get(str(slot)) is None

    def put_off(self, slot: int) -> None:
        """Let a slot whose timer has come wait behind those that wait already."""
        first, last = self._waiting() or (0, 0)
        chunk = self._pages.get(f"w{last}")
        if chunk is not None and chunk.count(b" ") + 1 >= WAITING_TOGETHER:
            last, chunk = last + 1, None
        self._pages.put(f"w{last}", b"%d" % slot if chunk is None else chunk + b" %d" % slot)
        self._pages.put("w", b"%d %d" % (first, last))

    def is_behind(self) -> bool:
        """Whether any slots wait."""
        return self._waiting() is not None

    def next_waiting(self, slots_max: int) -> list[int]:
        """Slots that wait no more, in the order in which they were put off."""
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
        """The numbers of the first and the last chunk of slots that wait."""
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

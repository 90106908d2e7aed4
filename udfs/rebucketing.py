"""Divides the state of the job among another number of buckets (`freshet rebucket`). Pure.

A user's bucket is `route % buckets` (:meth:`schemas.pseudonyms.Pseudonymiser.route`). So a user of bucket b of `before`
buckets goes to one of the buckets that equal b modulo the greatest common divisor of both numbers. What belongs to no
user (totals, what the second has counted so far) goes from bucket b to bucket `b % after`, whole, so that sums over all
buckets stay what they were.

The due index, and the counts by key id, follow from the users and are made anew. Names that belong to no user who was
placed are dropped: nothing of them is left.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final
from zlib import crc32

import msgspec

from schemas.consents import Level
from udfs.account import Account, decode_account, encode_account
from udfs.audit_chain import Book, ChainHead, decode_book, encode_book, note_denied
from udfs.generations import Caught, decode_caught, encode_caught
from udfs.kids import encode_kids
from udfs.rollout import decode_plan, encode_plan
from udfs.segments import KnownSegments, decode_known, encode_known
from udfs.state import UserState

USERS: Final = "users-v1"
DUE: Final = "due-v2"
OLDER_DUE: Final = "due-v1"
REBUILD: Final = "rebuild-v1"
ACCOUNT: Final = "account-v1"
AUDIT: Final = "audit-v1"
KIDS: Final = "kids-v1"
GENERATION: Final = "generation-v1"
ROLLOUT: Final = "rollout-v1"
SEGMENTS: Final = "segments-v1"
VALUES: Final = (ACCOUNT, AUDIT, KIDS, GENERATION, ROLLOUT, SEGMENTS)
LISTS: Final = ("weighing-v1", "lessons-v1", "gradients-v1", "feedback-sums-v1", "trials-v1")
"""What a bucket has collected since the second began; each entry stands for itself."""
MAPS: Final = (USERS, DUE, OLDER_DUE, REBUILD)

Place = Callable[[str, int], int | None]
"""(pseudonym, its bucket before) → its bucket after; None if nothing of this user is kept."""


class BucketState(msgspec.Struct):
    """All state of a bucket but its users: values, lists and maps by the state's name, and the timers in ms."""

    values: dict[str, bytes] = {}
    lists: dict[str, list[bytes]] = {}
    maps: dict[str, dict[str, bytes]] = {}
    timers: set[int] = set()


class DividedUsers:
    """What follows from the users of each new bucket: counts by key id, and the pages of the due index by slot.

    26 bytes in memory for each user who is in a slot.
    """

    def __init__(self) -> None:
        self.kids: dict[int, Counter[str]] = {}
        self.pages: dict[int, dict[int, bytearray]] = {}

    def add(self, bucket: int, pseudonym: str, kid: str, due_slot: int) -> None:
        """Enter a user who was placed in `bucket`; `due_slot` in ms, 0 for none."""
        self.kids.setdefault(bucket, Counter())[kid] += 1
        if due_slot:
            page = self.pages.setdefault(bucket, {}).setdefault(due_slot, bytearray())
            if page:
                page += b"\n"
            page += pseudonym.encode()


def is_settled(before: int, after: int) -> bool:
    """Whether a user's bucket before says which one comes after: no raw id is needed then.

    >>> is_settled(8, 4), is_settled(4, 8), is_settled(6, 4)
    (True, False, False)
    """
    return before % after == 0


def sources_of(bucket: int, before: int, after: int) -> range:
    """The buckets from which users may come to `bucket`.

    >>> list(sources_of(5, 4, 8)), list(sources_of(1, 8, 4)), list(sources_of(3, 6, 4))
    ([1], [1, 5], [1, 3, 5])
    """
    common = math.gcd(before, after)
    return range(bucket % common, before, common)


def may_drop(state: UserState) -> bool:
    """Whether a user of whom `consents` says nothing any more can be dropped: nothing but a withdrawal is kept of them.

    A job with empty state would not know them, either.
    """
    return state.level == Level.NONE and state.profile is None and not state.kept_for


def ended_chains(states: Mapping[int, BucketState], after: int) -> list[tuple[int, ChainHead]]:
    """The ends of the audit chains of buckets that there are no more, as far as no head was signed for them yet."""
    books = [
        (bucket, decode_book(raw)) for bucket, raw in _values(states, range(after, max(states, default=0) + 1), AUDIT)
    ]
    return [(bucket, book.head) for bucket, book in books if book.head.seq > book.head.signed_seq]


def divide(
    states: Mapping[int, BucketState], before: int, after: int, users: DividedUsers, place: Place
) -> dict[int, BucketState]:
    """The state of each of the `after` buckets but its users; `states` is that of the `before` buckets."""
    denied = _placed_counts(states, before, after, place)
    rebuilt = _placed_pages(states, place)
    return {
        bucket: _bucket_state(bucket, states, (before, after), users, denied.get(bucket, {}), rebuilt.get(bucket, {}))
        for bucket in range(after)
    }


def _bucket_state(
    bucket: int,
    states: Mapping[int, BucketState],
    numbers: tuple[int, int],
    users: DividedUsers,
    denied: Mapping[str, int],
    rebuilt: dict[str, bytes],
) -> BucketState:
    before, after = numbers
    whole, shared = range(bucket, before, after), sources_of(bucket, before, after)
    kids, pages = users.kids.get(bucket, Counter[str]()), users.pages.get(bucket, {})
    found = {
        ACCOUNT: _account([raw for _, raw in _values(states, whole, ACCOUNT)]),
        AUDIT: _book(bucket, states.get(bucket % before), denied, bucket < before),
        GENERATION: _caught([states[one] for one in shared if one in states]),
        ROLLOUT: _plan(bucket, states.get(bucket % before)),
        SEGMENTS: _segments([raw for _, raw in _values(states, shared, SEGMENTS)]),
        KIDS: encode_kids(kids) if kids else None,
    }
    lists = {name: [raw for one in whole if one in states for raw in states[one].lists.get(name, ())] for name in LISTS}
    maps = {DUE: _due(pages, [states[one] for one in shared if one in states]), REBUILD: rebuilt}
    return BucketState(
        {name: raw for name, raw in found.items() if raw is not None},
        {name: raws for name, raws in lists.items() if raws},
        {name: entries for name, entries in maps.items() if entries},
        _timers(pages, [states[one] for one in shared if one in states]),
    )


def _values(states: Mapping[int, BucketState], buckets: Iterable[int], name: str) -> list[tuple[int, bytes]]:
    return [(one, states[one].values[name]) for one in buckets if one in states and name in states[one].values]


def _account(raws: Sequence[bytes]) -> bytes | None:
    """The sum of the totals."""
    if not raws:
        return None
    total = Account()
    rejected: Counter[str] = Counter()
    for raw in raws:
        one = decode_account(raw)
        rejected.update(one.rejected)
        for field in ACCOUNT_SUMS:
            setattr(total, field, getattr(total, field) + getattr(one, field))
    total.rejected = dict(rejected)
    return encode_account(total)


ACCOUNT_SUMS: Final = tuple(name for name in Account.__struct_fields__ if name != "rejected")


def _book(bucket: int, parent: BucketState | None, denied: Mapping[str, int], goes_on: bool) -> bytes | None:
    """The book of a bucket: its chain goes on, or it begins where that of its `parent` ends.

    The first record of the next job says so: it names the hash and the number of the record that it follows. Nothing of
    a chain that begins is left to be signed.
    """
    raw = None if parent is None else parent.values.get(AUDIT)
    if raw is None and not denied:
        return None
    book = Book(bucket) if raw is None else decode_book(raw)
    if not goes_on:
        book = Book(bucket, msgspec.structs.replace(book.head, signed_seq=book.head.seq))
    return encode_book(msgspec.structs.replace(book, denied=dict(denied)))


def _placed_counts(
    states: Mapping[int, BucketState], before: int, after: int, place: Place
) -> dict[int, dict[str, int]]:
    """The denied interactions of users by their new bucket. Those of unknown users stay together."""
    books: dict[int, Book] = {}
    for source, raw in _values(states, range(before), AUDIT):
        for pseudonym, count in decode_book(raw).denied.items():
            bucket = place(pseudonym, source) if pseudonym else None
            known_as = "" if bucket is None else pseudonym
            target = source % after if bucket is None else bucket
            note_denied(books.setdefault(target, Book(target)), {known_as: count})
    return {bucket: book.denied for bucket, book in books.items()}


def _caught(states: Sequence[BucketState]) -> bytes | None:
    """How far the users of a bucket have caught up: as far as those whence they come, if these agree.

    If not, nothing is proven, and the bucket asks for marks and writes its users to Redis again.
    """
    held = [decode_caught(state.values.get(GENERATION)) for state in states if _is_used(state)]
    if not held:
        return None
    if all(one == held[0] for one in held):
        return encode_caught(held[0])
    proven = {one.proven for one in held}
    return encode_caught(Caught(proven.pop() if len(proven) == 1 else ""))


def _is_used(state: BucketState) -> bool:
    return GENERATION in state.values or ACCOUNT in state.values


def _plan(bucket: int, state: BucketState | None) -> bytes | None:
    raw = None if state is None else state.values.get(ROLLOUT)
    return None if raw is None else encode_plan(msgspec.structs.replace(decode_plan(raw), bucket=bucket))


def _segments(raws: Sequence[bytes]) -> bytes | None:
    """The segments of all; a segment's hour is the latest."""
    if not raws:
        return None
    known = [decode_known(raw) for raw in raws]
    seen: dict[str, int] = {}
    for one in known:
        for segment, hour in one.seen.items():
            seen[segment] = max(hour, seen.get(segment, 0))
    return encode_known(KnownSegments(min(one.swept for one in known), seen))


def _placed_pages(states: Mapping[int, BucketState], place: Place) -> dict[int, dict[str, bytes]]:
    """The users whose lists are still to be rewritten, by new bucket, in the pages of the generation keeper.

    There are as many pages as before, so one holds no more users than one did when buckets are divided.
    """
    names: dict[int, list[str]] = {}
    most = 1
    for source, state in states.items():
        pages = state.maps.get(REBUILD, {})
        most = max(most, len(pages), *(int(name.partition("/")[2] or 0) for name in pages)) if pages else most
        for page in pages.values():
            for pseudonym in filter(None, page.decode().split("\n")):
                if (bucket := place(pseudonym, source)) is not None:
                    names.setdefault(bucket, []).append(pseudonym)
    found: dict[int, dict[str, bytes]] = {}
    for bucket, pseudonyms in names.items():
        divided: dict[str, list[str]] = {}
        for pseudonym in pseudonyms:
            divided.setdefault(f"{crc32(pseudonym.encode()) % most}/{most}", []).append(pseudonym)
        found[bucket] = {name: "\n".join(group).encode() for name, group in divided.items()}
    return found


def _due(pages: Mapping[int, bytearray], states: Sequence[BucketState]) -> dict[str, bytes]:
    """The due index of a bucket: a page for each slot, and how full each minute is.

    A minute counts as full as all minutes whence its users come: at most too full, until it has passed.
    """
    found = {str(slot): bytes(page) for slot, page in pages.items()}
    counters: dict[str, tuple[int, int]] = {}
    for state in states:
        # As the index itself reads them: an older counter counts where there is no new one.
        for key, raw in {**state.maps.get(OLDER_DUE, {}), **state.maps.get(DUE, {})}.items():
            if key.startswith("m"):
                entered, _, onward = raw.partition(b" ")
                known = counters.get(key, (0, 0))
                counters[key] = known[0] + int(entered), max(known[1], int(onward or 0))
    return found | {key: b"%d %d" % count if count[1] else b"%d" % count[0] for key, count in counters.items()}


def _timers(pages: Mapping[int, bytearray], states: Sequence[BucketState]) -> set[int]:
    """A timer for each slot and each minute that is counted, and those that were for no slot.

    Late slots are deferred when their timers fire. A minute's count is dropped at its first slot, which may have nobody
    in it now.
    """
    timers = set(pages)
    for state in states:
        counted = (key for name in (DUE, OLDER_DUE) for key in state.maps.get(name, {}) if key.startswith("m"))
        timers |= {int(key[1:]) for key in counted}
        slots = {key for name in (DUE, OLDER_DUE) for key in state.maps.get(name, {})}
        timers |= {at for at in state.timers if str(at) not in slots}
    return timers

"""Which events of a user are known, so that duplicates are recognised: hashes of 8 bytes, with the days they came on.

Hashes are kept for as long as their events could be accepted again. `days` says, from the oldest hash on, how many came
while the user's newest event was of that day (UTC). No event is newer than the newest one, so a hash whose day is past
the dedupe horizon belongs to an event that is rejected as too late: it need not be known. Older states have no
days: their hashes count as ones of the day of the newest event, and leave a horizon later.
"""

from schemas.pseudonyms import EVENT_HASH_BYTES
from schemas.topics import DAY_MS

Day = tuple[int, int]
"""A day (since the epoch), and how many hashes are of it."""


def with_event(
    known: bytes, days: list[Day], event: bytes, newest: tuple[int, int], horizon_ms: int, events_max: int
) -> tuple[bytes, list[Day]]:
    """`known` and `days` after `event`; `newest` are the times of the newest event before and with it, in ms.

    At most `events_max` hashes, the last ones.

    >>> with_event(b"", [], b"12345678", (0, 5 * DAY_MS), DAY_MS, 512)
    (b'12345678', [(5, 1)])
    >>> with_event(b"12345678", [(5, 1)], b"abcdefgh", (5 * DAY_MS, 7 * DAY_MS), DAY_MS, 512)
    (b'abcdefgh', [(7, 1)])
    """
    before_ms, newest_ms = newest
    first_day, today = (newest_ms - horizon_ms) // DAY_MS, newest_ms // DAY_MS
    known += event
    runs = list(days)
    if not runs and len(known) > EVENT_HASH_BYTES:
        runs.append((before_ms // DAY_MS, len(known) // EVENT_HASH_BYTES - 1))
    if runs and runs[-1][0] == today:
        runs[-1] = (today, runs[-1][1] + 1)
    else:
        runs.append((today, 1))
    while runs[0][0] < first_day:
        known = known[runs.pop(0)[1] * EVENT_HASH_BYTES :]
    while (surplus := len(known) // EVENT_HASH_BYTES - events_max) > 0:
        day, count = runs.pop(0)
        if count > surplus:
            runs.insert(0, (day, count - surplus))
        known = known[min(count, surplus) * EVENT_HASH_BYTES :]
    return known, runs


def seen_before(known: bytes, event: bytes) -> bool:
    """Whether `event` is one of the hashes in `known`: a byte search that respects hash boundaries.

    >>> seen_before(b"ABCDEFGHabcdefgh", b"abcdefgh"), seen_before(b"ABCDEFGHabcdefgh", b"EFGHabcd")
    (True, False)
    """
    place = known.find(event)
    while place > 0 and place % EVENT_HASH_BYTES:
        place = known.find(event, place + 1)
    return place >= 0

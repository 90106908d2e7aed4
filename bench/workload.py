"""The events of the benchmarks: deterministic, so that both sides of a comparison read the same bytes.

A made-up shop, stationary in time. Sessions start at uniform times; their lengths are geometric, the gaps between the
events of a session exponential. Items follow a Zipf-Mandelbrot law over the ids of :mod:`models.random_model`
(popularity falls with the row, as in the model), users are mildly skewed (lognormal weights). One event in a hundred is
sent twice. All users consent to everything.
"""

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

USERS: Final = 100_000
ITEMS: Final = 10_000
SESSION_EVENTS_MEAN: Final = 8
SESSION_GAP_MEAN_MS: Final = 20_000
RAMP_MS: Final = 15 * 60_000
"""Sessions start this long before the first event, so that the first minute looks like any other."""
RATE_PER_S: Final = 2_000
"""Events per second of event time."""
USER_SKEW: Final = 0.7
ITEM_OFFSET: Final = 10
DUPLICATE_SHARE: Final = 0.01
DUPLICATE_DISTANCE: Final = 5
KINDS: Final[dict[str, float]] = {
    "view": 0.50,
    "click": 0.25,
    "impression": 0.15,
    "add_to_cart": 0.06,
    "purchase": 0.03,
    "search": 0.01,
}
SURFACES: Final = ("home", "search", "product", "basket")
COUNTRIES: Final = ("DE", "FR", "GB", "IE", "IT", "NL", "SE", "ES")

Ints = npt.NDArray[np.int64]
Record = tuple[bytes, bytes]
"""(key, value) as it is sent to Kafka."""


class Workload(NamedTuple):
    """Events in columns, in send order; `ts` in ms since the epoch."""

    ts: Ints
    user: Ints
    session: Ints
    kind: Ints
    item: Ints
    chance: Ints

    @property
    def duplicates(self) -> int:
        """The number of events that are sent twice."""
        return int(np.count_nonzero(self.chance[DUPLICATE_DISTANCE:] == self.chance[:-DUPLICATE_DISTANCE]))


def make_workload(events: int, begin_ms: int, seed: int = 0, users: int = USERS, items: int = ITEMS) -> Workload:
    """`events` events from `begin_ms` on, :data:`RATE_PER_S` per second; the same arguments give the same events."""
    random = np.random.default_rng(seed)
    span_ms = events * 1000 // RATE_PER_S
    sessions = int(1.02 * (span_ms + RAMP_MS) / 1000 * RATE_PER_S / SESSION_EVENTS_MEAN) + 100
    begin, user = random.integers(-RAMP_MS, span_ms + 1, sessions), _users(random, users, sessions)
    lengths = random.geometric(1 / SESSION_EVENTS_MEAN, sessions)
    session = np.repeat(np.arange(sessions), lengths)
    gaps = random.exponential(SESSION_GAP_MEAN_MS, len(session)).astype(np.int64)
    passed = np.cumsum(gaps)
    first = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    offset = begin[session] + passed - passed[first][session]
    order = np.argsort(offset, kind="stable")
    order = order[np.searchsorted(offset[order], 0) :][:events]
    session = session[order]
    columns = Workload(
        begin_ms + offset[order],
        user[session],
        session,
        random.choice(len(KINDS), events, p=list(KINDS.values())),
        random.choice(items, events, p=_zipf(items)),
        np.arange(events) * 2**20 + random.integers(0, 2**20, events),
    )
    return _send_some_twice(random, columns)


def _users(random: np.random.Generator, users: int, sessions: int) -> Ints:
    weights = random.lognormal(0, USER_SKEW, users)
    return random.choice(users, sessions, p=weights / weights.sum())


def _zipf(items: int) -> npt.NDArray[np.float64]:
    weights: npt.NDArray[np.float64] = 1.0 / (np.arange(items) + ITEM_OFFSET)
    weights /= weights.sum()
    return weights


def _send_some_twice(random: np.random.Generator, columns: Workload) -> Workload:
    events = len(columns.ts)
    sent = np.arange(events)
    again = np.flatnonzero(random.random(events) < DUPLICATE_SHARE)
    again = again[again >= DUPLICATE_DISTANCE]
    sent[again] = again - DUPLICATE_DISTANCE
    return Workload(*(column[sent] for column in columns))


def final_versions(workload: Workload) -> dict[int, int]:
    """User → version of the list that must be in Redis at the end, regardless of batching.

    The consent is version 1, and each event that is not a duplicate counts. Users whose last event does not change the
    list are left out: whether the last list includes it depends on the batches.
    """
    _, first = np.unique(workload.chance, return_index=True)
    first.sort()
    users, kinds = workload.user[first], workload.kind[first]
    found, last, counts = np.unique(users[::-1], return_index=True, return_counts=True)
    moves = np.array([kind not in ("impression", "search") for kind in KINDS])
    kept = moves[kinds[::-1][last]]
    return dict(zip(found[kept].tolist(), (counts[kept] + 1).tolist(), strict=True))


def user_id(user: int) -> str:
    """The raw id of a user: as long as a UUID, as in a real shop.

    >>> user_id(7)
    'user-00000007-4f1c-9e57-b2d3a86f5c10'
    """
    return f"user-{user:08d}-4f1c-9e57-b2d3a86f5c10"


def item_id(item: int) -> str:
    """The id of an item, as in :mod:`models.random_model`."""
    return f"item-{item + 1:05d}"


def event_records(workload: Workload) -> Iterator[Record]:
    """The records of the `interactions` topic."""
    kinds = list(KINDS)
    for ts, user, session, kind, item, chance in zip(*(column.tolist() for column in workload), strict=True):
        who = user_id(user)
        yield who.encode(), _event_json(kinds[kind], ts, who, user, session, item, chance).encode()


def _event_json(kind: str, ts: int, who: str, user: int, session: int, item: int, chance: int) -> str:
    """Built by hand, because a million of them are needed; a test decodes them."""
    what = f'"query":"search {item}"' if kind == "search" else f'"item_id":"item-{item + 1:05d}"'
    if kind in ("impression", "click"):
        what += f',"position":{chance % 30},"request_id":"{chance:016x}{session:016x}"'
    elif kind in ("purchase", "add_to_cart"):
        what += f',"value":{1 + chance % 9_900}.99,"currency":"EUR","quantity":{1 + chance % 3}'
    return (
        f'{{"event_id":"{ts >> 16:08x}-{ts & 65535:04x}-7{chance & 4095:03x}-8{session & 4095:03x}-{chance >> 8:012x}",'
        f'"type":"{kind}","ts":{ts},"user_id":"{who}","session_id":"{session:08x}-{user:08x}-5e55",{what},'
        f'"surface":"{SURFACES[chance % 4]}",'
        f'"context":{{"country":"{COUNTRIES[user % 8]}","device":"phone"}},"schema_v":1}}'
    )


def consent_records(ids: Iterator[str] | list[str], ts: int) -> Iterator[Record]:
    """The records of the `consents` topic: each of `ids` consents to everything at `ts`."""
    for who in ids:
        consent: dict[str, Any] = {
            "user_id": who,
            "level": "full",
            "ts": ts,
            "granted": ["personalise", "measure", "train"],
            "method": "banner",
            "notice_version": "2026-01",
            "jurisdiction": "EU",
        }
        yield who.encode(), msgspec.json.encode(consent)

"""Measures the cost of one user in a large bucket: an erasure in the due index, and counting users by key id.

    freshet bench users    # half a minute; writes the section "Users of a bucket" of RESULTS.md

State is in dicts here, so this is the cost of the rules alone; Flink's state adds some microseconds per page. "By
reading all" is how releases worked that had no counts and left names behind (:mod:`udfs.due_index`).
"""

import time
from collections import UserDict
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from bench.figures import machine
from bench.results import table, write_section
from schemas.topics import DAY_MS
from udfs.due_index import DueIndex
from udfs.kids import changed_kids, count_kids, decode_kids, encode_kids
from udfs.state import UserState

USERS: Final = (10_000, 100_000, 1_000_000)
SLOT_USERS_MAX: Final = 50
ROUNDS: Final = 5


class _Pages(UserDict[str, bytes]):
    """A map state in memory."""

    def put(self, key: str, value: bytes) -> None:
        self.data[key] = value

    def remove(self, key: str) -> None:
        del self.data[key]

    def is_empty(self) -> bool:
        return not self.data


def run(command: str) -> str:
    """Measure, and write the section with `command`; returns the table."""
    head = ["users of the bucket", "erasure", "by reading all", "users by key id, with one more", "by reading all"]
    rows = [[f"{count:,}", *(f"{ms:.3f} ms" for ms in _costs(count))] for count in USERS]
    when = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    measured = table(head, rows)
    title = f"## Users of a bucket\n\n{when} on {machine()}; `{command}`."
    write_section("users", f"{title}\n\nMeans of {ROUNDS} calls on state in memory.\n\n{measured}")
    return measured


def _costs(count: int) -> tuple[float, float, float, float]:
    users = {f"p1.{number:022d}": UserState() for number in range(count)}
    pages, older = _Pages(), _Pages()
    index = DueIndex(pages, SLOT_USERS_MAX, older)
    due = iter(range(count))
    index.put(index.add(users, lambda _: next(due) * DAY_MS // count))
    kids = encode_kids(count_kids(users))
    names = list(users)[:: count // ROUNDS]
    erasing = _mean_ms(names, lambda name: index.leave({users[name].due_slot: {name}}))
    counting = _mean_ms(names, lambda name: encode_kids(changed_kids(decode_kids(kids) or count_kids(()), [name], [])))
    older.update(pages.data)
    purging = _mean_ms(names, lambda name: index.purge_older({name}))
    return erasing, purging, counting, _mean_ms(names, lambda _: count_kids(users))


def _mean_ms(names: list[str], done: Callable[[str], object]) -> float:
    begun = time.perf_counter()
    for name in names:
        done(name)
    return (time.perf_counter() - begun) * 1_000 / len(names)

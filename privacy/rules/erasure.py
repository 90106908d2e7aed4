"""Erasure as pure rules: whose events are removed, how a partition is rewritten, and what proves an erasure.

All events of an erased user that were appended before they consented again are removed; if they have not, all events.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

import msgspec

from schemas.consents import Level
from schemas.receipts import ErasureStatus
from schemas.topics import MINUTE_MS
from udfs.consent import comes_after
from udfs.elements import ConsentRecord

SNAPSHOT_DURATION_MAX_MS: Final = 10 * MINUTE_MS
"""How long a snapshot may take (Flink's default `execution.checkpointing.timeout`): one that completes this soon after
an erasure may have started before it."""

LEFTOVERS: Final = (
    "savepoint",
    "redis.list",
    "redis.consent",
    "redis.past",
    "redis.elsewhere",
    "events",
    "exports",
)
"""The places where nothing of a user may be found if their erasure is effective."""


class NamedChange(NamedTuple):
    """A consent change, and all pseudonyms of its user, the current one first."""

    names: Sequence[str]
    change: ConsentRecord


class Erased(NamedTuple):
    """A user's last erasure; `returned_at` is the append time (ms) of the first grant after it, None without one."""

    names: Sequence[str]
    erasure: ConsentRecord
    returned_at: int | None = None


def last_erasures(changes: Iterable[NamedChange]) -> dict[str, Erased]:
    """Current pseudonym → the last erasure, of those who were ever erased."""
    found: dict[str, Erased] = {}
    for names, change in changes:
        known = found.get(names[0])
        if change.erase and (known is None or comes_after(change, known.erasure)):
            found[names[0]] = Erased(names, change)
    return found


def _grants_nothing(change: ConsentRecord) -> bool:
    """Whether the change grants nothing, not even a purpose without personalisation."""
    return change.level == Level.NONE and not change.purposes


def with_returns(erased: Mapping[str, Erased], changes: Iterable[NamedChange]) -> dict[str, Erased]:
    """`erased` with `returned_at`, from a second pass over the same changes.

    A grant given no later than the erasure was refused, so it is no return.
    """
    found = dict(erased)
    for names, change in changes:
        known = found.get(names[0])
        if known is None or _grants_nothing(change) or not comes_after(change, known.erasure):
            continue
        is_first = known.returned_at is None or change.append_ts < known.returned_at
        if is_first and change.said_at > known.erasure.said_at:
            found[names[0]] = known._replace(returned_at=change.append_ts)
    return found


def must_be_erased(returns: Mapping[str, int | None], name: str, appended: int) -> bool:
    """Whether a clean event must be erased; `returns` maps every pseudonym of each erased user to `returned_at`.

    >>> must_be_erased({"p1.a": None, "p1.b": 20}, "p1.a", 99), must_be_erased({"p1.a": None, "p1.b": 20}, "p1.b", 20)
    (True, False)
    """
    if name not in returns:
        return False
    returned_at = returns[name]
    return returned_at is None or appended < returned_at


class SeenRecord(NamedTuple):
    """A record of a partition: its offset, the offset that it is a copy of (or None), and whether it must be erased."""

    offset: int
    copy_of: int | None
    must_be_erased: bool


class RewritePlan(NamedTuple):
    """Copy the records to keep after `copied` and up to `up_to`, then delete everything up to `up_to`."""

    copied: int
    up_to: int


def plan(seen: Iterable[SeenRecord]) -> RewritePlan | None:
    """How to rewrite a partition; None if there is nothing to do. One pass, constant memory.

    Copies are made by offset, so the last one shows how far an interrupted run came. What it copied must be deleted in
    any case, or it would exist twice. Older copies are of offsets that no longer exist.
    """
    begins, copied, up_to = -1, -1, -1
    for offset, copy_of, gone in seen:
        begins = offset if begins < 0 else begins
        if copy_of is not None and copy_of >= begins:
            copied = max(copied, copy_of)
        if gone:
            up_to = offset
    up_to = max(up_to, copied)
    return RewritePlan(copied, up_to) if up_to >= 0 else None


def occurrences(chunks: Iterable[bytes], patterns: Sequence[bytes]) -> list[int]:
    """How often each of `patterns` occurs in the concatenation of `chunks`.

    >>> occurrences([b"..ab", b"c..abc"], [b"abc", b"x"])
    [2, 0]
    """
    counts, before = [0] * len(patterns), b""
    longest = max(map(len, patterns), default=1)
    for chunk in chunks:
        text = before + chunk
        for number, pattern in enumerate(patterns):
            # Matches that ended in the previous text were counted there.
            place = text.find(pattern, max(0, len(before) - len(pattern) + 1))
            while place >= 0:
                counts[number] += 1
                place = text.find(pattern, place + 1)
        before = text[len(text) - longest + 1 :] if len(text) >= longest else text
    return counts


class Evidence(msgspec.Struct, frozen=True):
    """What a verification has seen; times in ms.

    `found` counts the user's traces by place, `planted` those of the canary. `applied_at` is when the job applied the
    erasure, None if unknown. `tombstone_until` is when the tombstone may expire. `snapshots` is how many snapshots may
    be older than the erasure, None if none were checked.
    """

    erased_at: int
    now: int
    applied_at: int | None
    returned_at: int | None
    tombstone_until: int
    snapshots_kept_ms: int
    found: Mapping[str, int]
    planted: Mapping[str, int]
    snapshots: int | None = None


class ErasureVerdict(NamedTuple):
    """What is proved, and what prevents a better result."""

    status: ErasureStatus
    reasons: list[str]


def verdict(seen: Evidence) -> ErasureVerdict:
    """Judge the evidence. A search that misses what was planted proves nothing, whatever else it found."""
    blind = [place for place, count in seen.planted.items() if not count]
    if blind or not seen.planted:
        return ErasureVerdict("not_proved", [f"what was planted was not found in: {', '.join(blind) or 'any place'}"])
    if seen.returned_at is not None:
        left = seen.found.get("events", 0)
        reasons = [f"events: {left} from before the return"] if left else []
        return ErasureVerdict("incomplete" if left else "returned", reasons)
    reasons = [f"{place}: {seen.found[place]}" for place in LEFTOVERS if seen.found.get(place)]
    if not seen.found.get("redis.gone") and seen.now < seen.tombstone_until:
        reasons.append("redis.gone: the tombstone is missing, an older snapshot could bring the user back")
    if reasons:
        return ErasureVerdict("incomplete", reasons)
    waiting = _why_not_complete(seen)
    return ErasureVerdict("effective" if waiting else "complete", waiting)


def _why_not_complete(seen: Evidence) -> list[str]:
    reasons = []
    if left := seen.found.get("interactions"):
        reasons.append(f"interactions: {left} raw records, until their retention ends")
    if left := seen.found.get("answers"):
        reasons.append(f"answers: {left} to those who asked what was held, until their retention ends")
    if seen.snapshots is not None:
        if seen.snapshots:
            reasons.append(f"snapshots: {seen.snapshots} may be from before the erasure")
    elif seen.applied_at is None or seen.now < seen.applied_at + SNAPSHOT_DURATION_MAX_MS + seen.snapshots_kept_ms:
        reasons.append("snapshots: older ones may be kept until privacy.snapshots_kept_ms is over")
    return reasons


def is_older(completed_at: int, applied_at: int | None) -> bool:
    """Whether a snapshot completed then may contain a user erased at `applied_at` (ms, None: unknown)."""
    return applied_at is None or completed_at <= applied_at + SNAPSHOT_DURATION_MAX_MS

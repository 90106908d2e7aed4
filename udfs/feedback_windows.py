"""Sliding windows of feedback: counts by minute for an hour, and by hour for a day. Pure; versioned bytes."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from schemas.errors import SchemaError
from schemas.topics import DAY_MS, HOUR_MS, MINUTE_MS
from udfs.feedback import CUTS, OTHER, Counts, Series

WINDOWS_MS: Final = {"5m": 5 * MINUTE_MS, "1h": HOUR_MS, "24h": DAY_MS}
_VERSION: Final = 1


class StoredWindows(msgspec.Struct, array_like=True):
    """The bytes of windows: counts by the start of each minute and hour."""

    version: int
    minutes: dict[int, list[tuple[Series, Counts]]]
    hours: dict[int, list[tuple[Series, Counts]]]


class FeedbackWindows:
    """Counts by series; at most `series_max` of them, others share the surface `other` of their model and arm."""

    def __init__(self, series_max: int, raw: bytes | None = None) -> None:
        self._series_max = series_max
        stored = StoredWindows(_VERSION, {}, {}) if raw is None else _decode(raw)
        self._parts = {
            MINUTE_MS: {start: dict(found) for start, found in stored.minutes.items()},
            HOUR_MS: {start: dict(found) for start, found in stored.hours.items()},
        }

    def add(self, sums: Mapping[Series, Counts], now_ms: int) -> dict[Series, Counts]:
        """Add counts of this moment; returns them by the series that they are counted under."""
        self._drop(now_ms)
        counted: dict[Series, Counts] = {}
        for series, counts in sums.items():
            kept = self._kept(series, counted)
            counted.setdefault(kept, Counts()).add(counts)
        for length_ms, parts in self._parts.items():
            part = parts.setdefault(now_ms // length_ms * length_ms, {})
            for series, counts in counted.items():
                part.setdefault(series, Counts()).add(counts)
        return counted

    def _kept(self, series: Series, counted: Mapping[Series, Counts]) -> Series:
        known = self.series() | counted.keys()
        if series in known or len(known) < self._series_max:
            return series
        return series._replace(surface=OTHER)

    def series(self) -> set[Series]:
        """All series that have counts."""
        return {series for parts in self._parts.values() for part in parts.values() for series in part}

    def _drop(self, now_ms: int) -> None:
        for length_ms, keep_ms in ((MINUTE_MS, HOUR_MS), (HOUR_MS, DAY_MS)):
            parts = self._parts[length_ms]
            for start in [start for start in parts if start + length_ms <= now_ms - keep_ms]:
                del parts[start]

    def window(self, length_ms: int, now_ms: int) -> dict[Series, Counts]:
        """The counts of the last `length_ms`, to the minute, or to the hour for more than an hour."""
        sums: dict[Series, Counts] = {}
        part_ms = MINUTE_MS if length_ms <= HOUR_MS else HOUR_MS
        for start, part in self._parts[part_ms].items():
            if now_ms - length_ms < start + part_ms and start <= now_ms:
                for series, counts in part.items():
                    sums.setdefault(series, Counts()).add(counts)
        return sums

    def encode(self, now_ms: int) -> bytes:
        """Bytes for state, without what no window needs any more."""
        self._drop(now_ms)
        minutes, hours = (
            {start: list(part.items()) for start, part in self._parts[length_ms].items()}
            for length_ms in (MINUTE_MS, HOUR_MS)
        )
        return msgspec.msgpack.encode(StoredWindows(_VERSION, minutes, hours))


def _decode(raw: bytes) -> StoredWindows:
    stored = msgspec.msgpack.decode(raw, type=StoredWindows)
    if stored.version != _VERSION:
        raise SchemaError(f"feedback of version {stored.version}, this release reads {_VERSION}")
    return stored


def rates(counts: Counts) -> dict[str, float]:
    """The rates of :func:`trials_of`; one without anything to divide by is left out."""
    return {name: round(part / whole, 6) for name, (part, whole) in trials_of(counts).items() if whole}


def trials_of(counts: Counts) -> dict[str, tuple[int, int]]:
    """Successes and trials of the click-through rate, and of precision and recall at each k.

    Precision@k: the share of the seen first k positions that were clicked or bought. Recall@k: the share of all that
    was clicked or bought that was in the first k positions.
    """
    pairs = {"ctr": (counts.clicks, counts.impressions)}
    for place, cut in enumerate(CUTS):
        pairs[f"precision_at_{cut}"] = counts.hits_at[place], counts.seen_at[place]
        pairs[f"recall_at_{cut}"] = counts.hits_at[place], counts.hits
    return pairs


def metric_records(windows: FeedbackWindows, now_ms: int) -> list[bytes]:
    """The records of the topic `metrics`: JSON, one for each window and series."""
    return [
        msgspec.json.encode(_record(name, length_ms, now_ms, series, counts))
        for name, length_ms in WINDOWS_MS.items()
        for series, counts in sorted(windows.window(length_ms, now_ms).items())
    ]


def _record(name: str, length_ms: int, now_ms: int, series: Series, counts: Counts) -> dict[str, Any]:
    return {
        "kind": "feedback",
        "at": now_ms,
        "window": name,
        "window_ms": length_ms,
        **series._asdict(),
        **{field: getattr(counts, field) for field in ("lists", "impressions", "clicks", "purchases", "hits")},
        **rates(counts),
    }

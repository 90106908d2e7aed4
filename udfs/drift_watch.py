"""What feedback is watched for: falls of click-through rates, and a change of the kinds of events. Pure."""

from collections.abc import Mapping
from typing import Final

import msgspec

from schemas.errors import SchemaError
from schemas.events import EVENT_TYPES
from schemas.receipts import DriftReceipt
from schemas.topics import DAY_MS, HOUR_MS, MINUTE_MS
from udfs.drift import DriftSettings, PageHinkley, psi
from udfs.feedback import Counts, Series

WATCHED_MAX: Final = 64
EVENTS_MIN: Final = 1_000
"""Of fewer events an hour, or in the day before, the index is chance."""
_VERSION: Final = 1


class DriftWatch(msgspec.Struct, array_like=True):
    """The state. `tests` are by model and arm; `minute` is what has been counted of it; `kinds` are by hour.

    `shifted` is whether the kinds of events differ: it is reported once, until they have returned to half of the limit.
    """

    version: int = _VERSION
    minute_at: int = 0
    minute: dict[str, list[int]] = {}
    tests: dict[str, PageHinkley] = {}
    kinds: dict[int, list[int]] = {}
    shifted: bool = False

    def add(self, series: Mapping[Series, Counts], kinds: list[int], now_ms: int) -> None:
        """Add counts of this moment. Call `alarms` before."""
        for one, counts in series.items():
            name = f"{one.model}\n{one.arm}"
            if name in self.minute or len(self.minute) < WATCHED_MAX:
                clicks, seen = self.minute.get(name, [0, 0])
                self.minute[name] = [clicks + counts.clicks, seen + counts.impressions]
        if any(kinds):
            hour = now_ms // HOUR_MS * HOUR_MS
            self.kinds[hour] = [
                old + new for old, new in zip(self.kinds.get(hour, [0] * len(kinds)), kinds, strict=True)
            ]

    def alarms(self, now_ms: int, settings: DriftSettings) -> list[DriftReceipt]:
        """What has drifted, in the minute and the hour that have ended since the last call."""
        minute = now_ms // MINUTE_MS * MINUTE_MS
        if minute == self.minute_at:
            return []
        found = [
            receipt
            for name, (clicks, seen) in self.minute.items()
            if (receipt := self._fallen(name, clicks, seen, now_ms, settings)) is not None
        ]
        self.minute_at, self.minute = minute, {}
        return [*found, *self._shift(now_ms, settings)]

    def _fallen(self, name: str, clicks: int, seen: int, now_ms: int, settings: DriftSettings) -> DriftReceipt | None:
        test = self.tests.pop(name, PageHinkley())
        before = test.successes / test.trials if test.trials else 0.0
        fallen = test.add(clicks, seen, settings)
        while len(self.tests) >= WATCHED_MAX:
            del self.tests[next(iter(self.tests))]
        self.tests[name] = test
        if not fallen:
            return None
        model, _, arm = name.partition("\n")
        return DriftReceipt("ctr", model, arm, round(before, 6), round(clicks / max(1, seen), 6), now_ms)

    def _shift(self, now_ms: int, settings: DriftSettings) -> list[DriftReceipt]:
        for hour in [hour for hour in self.kinds if hour <= now_ms - DAY_MS - HOUR_MS]:
            del self.kinds[hour]
        hour = now_ms // HOUR_MS * HOUR_MS
        recent = [counts for at, counts in self.kinds.items() if at >= hour - HOUR_MS]
        older = [counts for at, counts in self.kinds.items() if at < hour - HOUR_MS]
        now, before = (
            [sum(column) for column in zip(*some, strict=True)] or [0] * len(EVENT_TYPES) for some in (recent, older)
        )
        if min(sum(now), sum(before)) < EVENTS_MIN:
            return []
        index = psi(before, now)
        if self.shifted:
            self.shifted = index > settings.psi / 2
            return []
        if index <= settings.psi:
            return []
        self.shifted = True
        return [DriftReceipt("kinds", "", "", settings.psi, round(index, 4), now_ms)]


def encode_watch(watch: DriftWatch) -> bytes:
    """Bytes for `drift-v1`."""
    return msgspec.msgpack.encode(watch)


def decode_watch(raw: bytes | None) -> DriftWatch:
    """The state behind `raw`; a new one for None."""
    watch = DriftWatch() if raw is None else msgspec.msgpack.decode(raw, type=DriftWatch)
    if watch.version != _VERSION:
        raise SchemaError(f"drift of version {watch.version}, this release reads {_VERSION}")
    return watch

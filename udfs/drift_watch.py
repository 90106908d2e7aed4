"""What feedback is watched for: falls of its rates, and changes of the events that lists are made from. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

import msgspec

from schemas.errors import SchemaError
from schemas.receipts import Drifted, DriftReceipt
from schemas.topics import DAY_MS, HOUR_MS, MINUTE_MS
from udfs.drift import DriftSettings, PageHinkley, psi
from udfs.feedback import CountedInput, Counts, FeedbackSums, Series, sum_classes
from udfs.feedback_windows import trials_of

WATCHED_MAX: Final = 64
EVENTS_MIN: Final = 1_000
"""Of fewer events an hour, or in the day before, the index is chance."""
RATES: Final = tuple(trials_of(Counts()))
"""What Page-Hinkley tests of a model and arm. A fall is reported once, by the rate that finds it first."""
_KINDS: Final = "kinds"
_UNKNOWN: Final = "unknown"
_VERSION: Final = 2


class DriftWatch(msgspec.Struct, array_like=True):
    """The state. `tests` are of each of :data:`RATES`, by model and arm; `minute` is what has been counted of it.

    `shares` are the classes of events by hour, by what is classed and the model. Those in `shifted` differ: they are
    reported once, until they have returned to half of the limit.
    """

    version: int = _VERSION
    minute_at: int = 0
    minute: dict[str, list[tuple[int, int]]] = {}
    tests: dict[str, list[PageHinkley]] = {}
    shares: dict[str, dict[int, list[int]]] = {}
    shifted: list[str] = []

    def add(self, series: Mapping[Series, Counts], sums: FeedbackSums, now_ms: int) -> None:
        """Add counts of this moment; `series` are those of `sums` as they are counted. Call `alarms` before."""
        for one, counts in series.items():
            name = f"{one.model}\n{one.arm}"
            if name in self.minute or len(self.minute) < WATCHED_MAX:
                before = self.minute.get(name, [(0, 0)] * len(RATES))
                more = trials_of(counts).values()
                self.minute[name] = [(old[0] + new[0], old[1] + new[1]) for old, new in zip(before, more, strict=True)]
        self._share(CountedInput(_KINDS), sums.kinds, now_ms)
        for what, classes in sums.inputs.items():
            self._share(what, classes, now_ms)

    def _share(self, what: CountedInput, classes: Sequence[int], now_ms: int) -> None:
        name = "\n".join(what)
        if not any(classes) or (name not in self.shares and len(self.shares) >= WATCHED_MAX):
            return
        hours, hour = self.shares.setdefault(name, {}), now_ms // HOUR_MS * HOUR_MS
        hours[hour] = sum_classes(hours.get(hour, ()), classes)

    def alarms(self, now_ms: int, settings: DriftSettings) -> list[DriftReceipt]:
        """What has drifted, in the minute and the hour that have ended since the last call."""
        minute = now_ms // MINUTE_MS * MINUTE_MS
        if minute == self.minute_at:
            return []
        found = [self._fallen(name, trials, now_ms, settings) for name, trials in self.minute.items()]
        self.minute_at, self.minute = minute, {}
        found += [self._shift(name, now_ms, settings) for name in list(self.shares)]
        return [receipt for receipt in found if receipt is not None]

    def _fallen(
        self, name: str, trials: Sequence[tuple[int, int]], now_ms: int, settings: DriftSettings
    ) -> DriftReceipt | None:
        """The first rate that has fallen. All of them then begin anew: a fall shows in several."""
        tests = self.tests.pop(name, None) or [PageHinkley() for _ in RATES]
        found = None
        for what, test, (successes, tried) in zip(RATES, tests, trials, strict=True):
            before = test.successes / test.trials if test.trials else 0.0
            if test.add(successes, tried, settings) and found is None:
                model, _, arm = name.partition("\n")
                now = successes / max(1, tried)
                found = DriftReceipt(cast(Drifted, what), model, arm, round(before, 6), round(now, 6), now_ms)
        while len(self.tests) >= WATCHED_MAX:
            del self.tests[next(iter(self.tests))]
        self.tests[name] = tests if found is None else [PageHinkley(*one) for one in trials]
        return found

    def _shift(self, name: str, now_ms: int, settings: DriftSettings) -> DriftReceipt | None:
        hours, hour = self.shares[name], now_ms // HOUR_MS * HOUR_MS
        for old in [at for at in hours if at <= now_ms - DAY_MS - HOUR_MS]:
            del hours[old]
        if not hours:
            del self.shares[name]
            self.shifted = [one for one in self.shifted if one != name]
            return None
        now = sum_classes(*(classes for at, classes in hours.items() if at >= hour - HOUR_MS))
        before = sum_classes(*(classes for at, classes in hours.items() if at < hour - HOUR_MS))
        if min(sum(now), sum(before)) < EVENTS_MIN:
            return None
        what, _, model = name.partition("\n")
        before += [0] * (len(now) - len(before))
        index = psi(before, now)
        if what == _UNKNOWN and now[-1] * sum(before) <= before[-1] * sum(now):
            index = 0.0  # that the model knows more is what learning is for
        if name in self.shifted:
            if index <= settings.psi / 2:
                self.shifted.remove(name)
            return None
        if index <= settings.psi:
            return None
        self.shifted = [*self.shifted, name]
        return DriftReceipt(cast(Drifted, what), model, "", settings.psi, round(index, 4), now_ms)


def encode_watch(watch: DriftWatch) -> bytes:
    """Bytes for `drift-v1`."""
    return msgspec.msgpack.encode(watch)


def decode_watch(raw: bytes | None) -> DriftWatch:
    """The state behind `raw`; a new one for None."""
    if raw is None:
        return DriftWatch()
    stored: list[Any] = msgspec.msgpack.decode(raw, type=list)
    if stored[:1] == [1]:
        stored = _of_version_1(*stored)
    if stored[:1] != [_VERSION]:
        raise SchemaError(f"drift of version {stored[:1]}, this release reads up to {_VERSION}")
    return msgspec.convert(stored, DriftWatch)


def _of_version_1(
    version: int, minute_at: int, minute: object, tests: Mapping[str, Any], kinds: Mapping[int, Any], shifted: bool
) -> list[Any]:
    """State that had a test of the click-through rate, and the kinds of events. What it had of a minute is left out."""
    name = "\n".join(CountedInput(_KINDS))
    others = [PageHinkley()] * (len(RATES) - 1)
    return [
        _VERSION,
        minute_at,
        {},
        {one: [msgspec.convert(test, PageHinkley), *others] for one, test in tests.items()},
        {name: kinds} if kinds else {},
        [name] if shifted else [],
    ]

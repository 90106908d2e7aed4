"""Fakes for what operators use: keyed state, timers with a manual clock, and a list store.

Flink's state copies its values, so a fake that returned the object itself would hide a forgotten write:
everything stored here is bytes, text or numbers.
"""

import copy
from collections import UserDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

import msgspec
import numpy as np
from pyflink.common import Row

from schemas.consents import LEVEL_NAME, Level
from schemas.errors import StoreUnavailable
from schemas.lists import RecommendationList, decode_list
from schemas.store import (
    ALL,
    RELEARNED_TAKEN,
    UPDATE_TTL_MS,
    ConsentOutcome,
    ListWrite,
    PublishedUpdate,
    PublishOutcome,
    SimilarList,
    Tombstone,
    WriteOutcome,
    Written,
)
from schemas.topics import DAY_MS
from tests.support.vocabulary import value_of
from udfs.elements import ConsentRecord

TOKEN = "0" * 12
"""The generation that a fresh fake store is in, and that a bucket of tests has caught up with."""
DIRECTLY = -1
"""The partition of what was withdrawn in Redis before it was in the topic."""

K = TypeVar("K")
V = TypeVar("V")


class DictState(UserDict[K, V], Generic[K, V]):
    """A MapState: removing a missing key is an error, as on RocksDB with a cache in front.

    `reads` counts the entries that were looked up or iterated over.
    """

    reads = 0

    def __getitem__(self, key: K) -> V:
        self.reads += 1
        return self.data[key]

    def get(self, key: K, default: Any = None) -> Any:
        """The value of `key`, or None."""
        self.reads += 1
        return self.data.get(key, default)

    def __iter__(self) -> Iterator[K]:
        for key in self.data:
            self.reads += 1
            yield key

    def put(self, key: K, value: V) -> None:
        """Set the value of `key`."""
        assert isinstance(value, bytes), "state holds bytes"
        self.data[key] = value

    def remove(self, key: K) -> None:
        """Remove `key`."""
        del self.data[key]

    def is_empty(self) -> bool:
        """Whether there is nothing."""
        return not self.data


class Value:
    """A ValueState."""

    def __init__(self) -> None:
        self.held: Any = None

    def value(self) -> Any:
        """The stored value, or None."""
        return self.held

    def update(self, value: Any) -> None:
        """Store `value`."""
        assert isinstance(value, bytes), "state holds bytes"
        self.held = value

    def clear(self) -> None:
        """Hold nothing."""
        self.held = None


class Appended:
    """A ListState."""

    def __init__(self) -> None:
        self.held: list[bytes] = []

    def add(self, value: bytes) -> None:
        """Append `value`."""
        self.held.append(value)

    def get(self) -> Iterable[bytes] | None:
        """All values, or None where there are none."""
        return iter(self.held) if self.held else None

    def clear(self) -> None:
        """Forget all."""
        self.held = []


class Keyed:
    """The state of one key, its timers and its clock: both runtime context and context."""

    def __init__(self, key: Any = 100, now_ms: int = 0) -> None:
        self.key = key
        self.now_ms = now_ms
        self.timers: set[int] = set()
        self.states: dict[str, Any] = {}
        self.counts: dict[str, int] = {}

    def snapshot(self) -> "Keyed":
        """A copy of state, timers and clock, as in a checkpoint."""
        return copy.deepcopy(self)

    # as RuntimeContext and as its state backend

    @property
    def _keyed_state_backend(self) -> "Keyed":
        """What sets the current key."""
        return self

    def set_current_key(self, key: Any) -> None:
        """There is only one key: as an integer for the context, or as a row for the state."""
        assert key in (self.key, Row(self.key)), f"the key {key} is not here"

    def get_map_state(self, descriptor: Any) -> DictState[str, bytes]:
        """The map state of this name."""
        return self.states.setdefault(descriptor.name, DictState[str, bytes]())  # type: ignore[no-any-return]

    def get_state(self, descriptor: Any) -> Value:
        """The value state of this name."""
        return self.states.setdefault(descriptor.name, Value())  # type: ignore[no-any-return]

    def get_list_state(self, descriptor: Any) -> Appended:
        """The list state of this name."""
        return self.states.setdefault(descriptor.name, Appended())  # type: ignore[no-any-return]

    def get_index_of_this_subtask(self) -> int:
        """The only one."""
        return 0

    def get_metrics_group(self) -> "Keyed":
        """Metrics are counted in `counts`."""
        return self

    def add_group(self, name: str, value: str | None = None) -> "MetricGroup":
        """A group of metrics."""
        return MetricGroup(self.counts).add_group(name, value)

    # as KeyedProcessFunction.Context

    def timer_service(self) -> "Keyed":
        """The timers of this key."""
        return self

    def current_processing_time(self) -> int:
        """The manual clock."""
        return self.now_ms

    def register_processing_time_timer(self, timestamp: int) -> None:
        """As in Flink, a timer that is set twice fires once."""
        self.timers.add(timestamp)

    def get_current_key(self) -> Any:
        """The key."""
        return self.key


class MetricGroup:
    """A group of metrics; those with labels appear in `counts` as `name{label="value"}`."""

    def __init__(self, counts: dict[str, int], labels: str = "") -> None:
        self._counts, self._labels = counts, labels

    def add_group(self, name: str, value: str | None = None) -> "MetricGroup":
        """A group below; only those with a value are labels."""
        return MetricGroup(self._counts, self._labels if value is None else f'{self._labels}{name}="{value}"')

    def counter(self, name: str) -> "Counter":
        """A counter that appears in `counts`."""
        return Counter(self._counts, name + (f"{{{self._labels}}}" if self._labels else ""))


class Counter:
    """A metric."""

    def __init__(self, counts: dict[str, int], name: str) -> None:
        self._counts, self._name = counts, name
        counts.setdefault(name, 0)

    def inc(self, value: int = 1) -> None:
        """Count."""
        self._counts[self._name] += value


class Harness:
    """Runs a keyed operator on one key: processes elements and advances time."""

    def __init__(self, operator: Any, keyed: Keyed) -> None:
        self.operator, self.keyed = operator, keyed
        operator.open(keyed)

    def element(self, value: Any) -> list[Any]:
        """Process `value` and return the output."""
        return list(self.operator.process_element(value, self.keyed))

    def advance_to(self, now_ms: int) -> list[Any]:
        """Advance the clock, fire due timers, and return the output."""
        emitted: list[Any] = []
        while self.keyed.timers and (timer := min(self.keyed.timers)) <= now_ms:
            self.keyed.timers.remove(timer)
            self.keyed.now_ms = max(self.keyed.now_ms, timer)
            emitted += self.operator.on_timer(timer, self.keyed)
        self.keyed.now_ms = max(self.keyed.now_ms, now_ms)
        return emitted


class MemoryStore:
    """A :class:`ListStore` in dicts that replies as the scripts of :mod:`adapters.redis.scripts` do.

    `clock` is the time for expiry. `fail_next(n)` makes the next n calls raise. `go_back_to(copy)` is a
    crash that loses what came after `copy = held()`: readers are closed until `current_generation` has made
    a new generation.
    """

    def __init__(self, epoch: int, clock: Callable[[], int]) -> None:
        self.epoch = epoch
        self.outage_max_ms = 3_600_000
        self._clock = clock
        self._failures = 0
        self._lists: dict[str, tuple[bytes, int]] = {}
        self._consents: dict[str, ConsentRecord] = {}
        self._popular: dict[str, tuple[bytes, int]] = {}
        self._gone: dict[str, ConsentRecord] = {}
        self._past: dict[str, ConsentRecord] = {}
        self._proofs: dict[str, str] = {}
        self._generation = {"token": TOKEN, "open": True}
        self._updates: dict[int, tuple[bytes, int]] = {}
        self.relearned_parts: dict[tuple[str, str], bytes] = {}
        self._whole: list[bytes] = []
        self._head: list[tuple[int, int]] = []
        self.writes = 0

    def at_epoch(self, epoch: int) -> "MemoryStore":
        """The same keys as seen by a later or earlier deployment."""
        other = copy.copy(self)
        other.epoch = epoch
        return other

    def fail_next(self, calls: int) -> None:
        """Be unavailable for that many calls."""
        self._failures = calls

    def held(self) -> Any:
        """All contents, as in a dump."""
        kept = self._lists, self._consents, self._popular, self._gone, self._past, self._proofs
        return [dict(each) for each in kept]

    def go_back_to(self, held: Any) -> None:
        """Restart as another process with earlier contents."""
        kept = self._lists, self._consents, self._popular, self._gone, self._past, self._proofs
        for each, before in zip(kept, held, strict=True):
            each.clear()  # type: ignore[attr-defined]
            each.update(before)  # type: ignore[attr-defined]
        self._generation["open"] = False

    def current_generation(self) -> str:
        """See :class:`ListStore`."""
        self._maybe_fail()
        if not self._generation["open"]:
            token = f"{int(str(self._generation['token']), 16) + 1:012x}"
            self._generation.update(token=token, open=True)
        return str(self._generation["token"])

    def write(
        self, consents: Sequence[ConsentRecord], lists: Sequence[ListWrite], want_popular: bool, token: str
    ) -> Written:
        """See :class:`ListStore`."""
        self._maybe_fail()
        consent_outcomes = [self._write_consent(change, token) for change in consents]
        list_outcomes = [self._write_list(write, token) for write in lists]
        self.writes += len(lists)
        popular = self.popular(ALL) if want_popular else None
        return Written(consent_outcomes, list_outcomes, popular)

    def forget(self, pseudonyms: Sequence[str]) -> None:
        """See :class:`ListStore`."""
        if pseudonyms:
            self._maybe_fail()
        for pseudonym in pseudonyms:
            self._lists.pop(pseudonym, None)

    def tombstones(self, pseudonyms: Sequence[str]) -> dict[str, Tombstone]:
        """See :class:`ListStore`."""
        self._maybe_fail()
        found = {name: self._gone.get(name) or self._past.get(name) for name in pseudonyms}
        return {
            name: Tombstone(e.append_ts, e.partition, e.offset, e.erase, e.said_at) for name, e in found.items() if e
        }

    def relink(self, links: Mapping[str, str]) -> None:
        """See :class:`ListStore`."""
        self._maybe_fail()
        for current, previous in links.items():
            decided = current in self._consents or current in self._gone
            for kept in (self._lists, self._consents, self._gone, self._past, self._proofs):
                value = kept.pop(previous, None)  # type: ignore[attr-defined]
                if value is not None and not decided:
                    kept[current] = value  # type: ignore[index]

    def write_popular(self, segment: str, epoch: int, version: int, ttl_ms: int, payload: bytes) -> WriteOutcome:
        """See :class:`ListStore`."""
        self._maybe_fail()
        known = self.popular(segment)
        if known is not None and (known.epoch, known.v) > (epoch, version):
            return WriteOutcome.STALE
        self._popular[segment] = payload, self._clock() + ttl_ms
        return WriteOutcome.WRITTEN

    def write_similar(self, lists: Sequence[SimilarList], ttl_ms: int) -> list[WriteOutcome]:
        """See :class:`ListStore`."""
        return [
            self.write_popular(f"similar of {one.item}", self.epoch, one.version, ttl_ms, one.payload) for one in lists
        ]

    def publish_update(self, sequence: int, after: int, update: bytes) -> PublishOutcome:
        """See :class:`ListStore`."""
        self._maybe_fail()
        if self._head and self._head[0][0] > self.epoch:
            return PublishOutcome.OLDER
        if self._head != [(self.epoch, after)] or not self._whole:
            return PublishOutcome.WANTS_WHOLE
        self._updates[after] = update, self._clock() + UPDATE_TTL_MS
        self._head[:] = [(self.epoch, sequence)]
        return PublishOutcome.PUBLISHED

    def publish_whole(self, sequence: int, whole: bytes) -> PublishOutcome:
        """See :class:`ListStore`."""
        self._maybe_fail()
        if self._head and self._head[0][0] > self.epoch:
            return PublishOutcome.OLDER
        self._whole[:] = [whole]
        self._head[:] = [(self.epoch, sequence)]
        return PublishOutcome.PUBLISHED

    def update_after(self, sequence: int) -> PublishedUpdate:
        """See :class:`ListStore`."""
        self._maybe_fail()
        return PublishedUpdate(self._alive(self._updates, sequence), self._head[0][1] if self._head else 0)

    def relearned(self, request: str, part: str) -> bytes | None:
        """See :class:`ListStore`."""
        self._maybe_fail()
        return self.relearned_parts.get((request, part))

    def confirm_relearned(self, request: str) -> None:
        """See :class:`ListStore`."""
        self._maybe_fail()
        self.relearned_parts[request, RELEARNED_TAKEN] = b"1"

    def updates(self) -> list[bytes]:
        """All updates that are there, in order."""
        return [raw for raw, _ in self._updates.values()]

    def whole_model(self) -> bytes | None:
        """See :class:`ListStore`."""
        self._maybe_fail()
        return self._whole[0] if self._whole else None

    def lose_shared_lists(self) -> None:
        """Forget the lists that are nobody's own, as a flush does."""
        self._popular.clear()

    def lose_model(self) -> None:
        """Forget the online model, as a flush does."""
        self._updates.clear()
        self._whole.clear()
        self._head.clear()

    def _maybe_fail(self) -> None:
        if self._failures:
            self._failures -= 1
            raise StoreUnavailable("the fake is down")

    def _write_consent(self, change: ConsentRecord, token: str) -> ConsentOutcome:
        pseudonym = change.pseudonym
        known = self.consent(pseudonym) or self._gone.get(pseudonym)
        if known is not None:
            there = (known.partition, known.offset) == (change.partition, change.offset)
            if there and change.level and not known.level and change.said_at <= known.said_at:
                return ConsentOutcome.REFUSED
            if there and (not change.level or token in ("", self._proofs.get(pseudonym))):
                return ConsentOutcome.IN_FORCE
            comes_after = there or self._comes_after(known, change)
            if not comes_after:
                past = self._past.get(pseudonym)
                left = past is not None and (not self._comes_after(past, change) or change.said_at <= past.said_at)
                denied = left or not known.level
                return ConsentOutcome.REFUSED if change.level and denied else ConsentOutcome.STALE
            if not known.level and change.said_at <= known.said_at:
                if change.level:
                    return ConsentOutcome.REFUSED
                change = msgspec.structs.replace(change, said_at=known.said_at)
        self._lists.pop(pseudonym, None)
        if not change.level:
            self._gone[pseudonym] = change
        elif pseudonym in self._gone:
            self._past[pseudonym] = self._gone.pop(pseudonym)
        if change.erase:
            self._consents.pop(pseudonym, None)
            self._past.pop(pseudonym, None)
            return ConsentOutcome.IN_FORCE
        self._consents[pseudonym] = change
        self._proofs[pseudonym] = token if change.level else ""
        return ConsentOutcome.IN_FORCE

    def _comes_after(self, known: ConsentRecord, change: ConsentRecord) -> bool:
        if known.partition == change.partition:
            return change.offset > known.offset
        if known.partition == DIRECTLY and not change.level and change.said_at >= known.said_at:
            return True
        return change.append_ts > known.append_ts

    def _write_list(self, write: ListWrite, token: str) -> WriteOutcome:
        if write.pseudonym in self._gone:
            return WriteOutcome.GONE
        consent = self.consent(write.pseudonym)
        if consent is None or value_of(consent) != write.consent or consent.level == Level.NONE:
            return WriteOutcome.NO_CONSENT
        if self._proofs[write.pseudonym] != token:
            return WriteOutcome.NO_CONSENT
        end_ms = min(self._clock() + write.ttl_ms, consent.expires_at or 2**53)
        if end_ms <= self._clock():
            return WriteOutcome.NO_CONSENT
        known = self._alive(self._lists, write.pseudonym)
        if known is not None:
            there = decode_list(known)
            if (there.epoch, there.v) > (self.epoch, write.version):
                return WriteOutcome.STALE
        self._lists[write.pseudonym] = write.payload, end_ms
        return WriteOutcome.WRITTEN

    def _alive(self, kept: dict[Any, tuple[Any, int]], key: Any) -> Any:
        value, until_ms = kept.get(key, (None, 0))
        return value if until_ms > self._clock() else None

    # what tests look at

    def raw_list_of(self, pseudonym: str) -> bytes | None:
        """The list as it was written."""
        return self._alive(self._lists, pseudonym)

    def list_of(self, pseudonym: str) -> RecommendationList | None:
        """The list as a reader gets it."""
        consent = self.consent(pseudonym)
        raw = self._alive(self._lists, pseudonym)
        if raw is None or pseudonym in self._gone or consent is None or consent.level == Level.NONE:
            return None
        proven = self._generation["open"] and self._proofs[pseudonym] == self._generation["token"]
        return decode_list(raw) if proven else None

    def has_list_key(self, pseudonym: str) -> bool:
        """Whether a list is stored at all, readable or not."""
        return self._alive(self._lists, pseudonym) is not None

    def consent(self, pseudonym: str) -> ConsentRecord | None:
        """The stored consent."""
        return self._consents.get(pseudonym)

    def level(self, pseudonym: str) -> str | None:
        """The name of its level."""
        consent = self.consent(pseudonym)
        return None if consent is None else LEVEL_NAME[Level(consent.level)]

    def withdraw(self, pseudonym: str, said_at: int, erase: bool = False) -> int:
        """The frontends' withdrawal script; returns the time that counts as the user's decision."""
        if not self._clock() - DAY_MS <= said_at <= self._clock():
            said_at = self._clock()
        fence = ConsentRecord(pseudonym, Level.NONE, 0, self._clock(), DIRECTLY, -1, 0, said_at, erase)
        self._lists.pop(pseudonym, None)
        self._gone[pseudonym] = fence
        if erase:
            self._consents.pop(pseudonym, None)
            self._past.pop(pseudonym, None)
        else:
            self._consents[pseudonym] = fence
        return said_at

    def end_tombstones(self, before_ms: int) -> None:
        """Expire everything decided before `before_ms`, except consents in force."""
        ending = [name for name, change in self._consents.items() if not change.level]
        for kept, names in ((self._consents, ending), (self._gone, list(self._gone)), (self._past, [*self._past])):
            for name in names:
                if kept[name].append_ts < before_ms:
                    del kept[name]

    def is_gone(self, pseudonym: str) -> bool:
        """Whether there is a tombstone."""
        return pseudonym in self._gone

    def popular(self, segment: str) -> RecommendationList | None:
        """The popular list of a segment."""
        raw = self._alive(self._popular, segment)
        return None if raw is None else decode_list(raw)

    def similar(self, item: str) -> RecommendationList | None:
        """The list of items similar to `item`."""
        return self.popular(f"similar of {item}")

    def lists(self) -> Iterator[tuple[str, RecommendationList]]:
        """All readable lists."""
        for pseudonym in sorted(self._lists):
            found = self.list_of(pseudonym)
            if found is not None:
                yield pseudonym, found


class FixedModel:
    """A model in numpy: item rows score by a fixed table, and by how often and how recently they occurred.

    `items` is row → item id with row 0 for padding. All rows are ranked, `top_k` are returned. `batches` records the
    sizes of the batches.
    """

    wanted: tuple[str, ...] = ()

    def __init__(self, items: Sequence[str], top_k: int = 50) -> None:
        self.items = ["", *items]
        self.index = {item: row for row, item in enumerate(items, start=1)}
        self.wanted: tuple[str, ...] = ()
        self.top_k = min(top_k, len(items))
        self.batches: list[int] = []

    def score(self, items: Any, weights: Any, features: Any = None) -> tuple[Any, Any]:
        """See :class:`udfs.ranking.Scoring`."""
        self.batches.append(len(items))
        size = len(self.items)
        near = 1.0 / (1.0 + np.abs(np.arange(size)[:, None] - np.arange(size)[None, :]))
        scores = np.einsum("up,upi->ui", weights, near[items]).astype(np.float32)
        scores[:, 0] = -np.inf
        rows = np.argsort(-scores, axis=1, kind="stable")[:, : self.top_k]
        return np.take_along_axis(scores, rows, axis=1), rows.astype(np.int64)

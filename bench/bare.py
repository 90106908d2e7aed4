"""The baseline of the job: a plain Python consumer that does the same work per event but without fault tolerance.

It has the same decoding, validation, HMAC, deduplication, consent, popularity, profile, scoring and list writes, by the
same rules. But it is one process, keeps profiles as objects in a dict, and has no serialised state, packing, receipts,
clean events or due index.

    python -m bench.bare --settings FILE --consents N --events N --pause-after N

It reads all consents, then `--events` interactions. After `--pause-after` of them, it prints a line and waits for a
line on standard input, so that the harness can start measuring; it does the same at the end.
"""

import argparse
import functools
import sys
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any, Final

import msgspec

from adapters.secrets.key_rings import load_key_ring
from bench.clients import consumer
from jobs.settings import Settings, load_settings
from jobs.workers import open_shelf, open_store
from models.online.dimensions import USER_BITS
from models.online.learner import Learner
from models.online.lessons import Lesson, sum_lessons
from models.online.score_weights import Gradients
from schemas.events import EVENT_TS_MIN, FUTURE_SKEW_MAX_MS, KIND_OF
from schemas.lists import encode_list, item_fragment
from schemas.marks import MARK_KEY
from schemas.model_versions import DEFAULT
from schemas.pseudonyms import Pseudonymiser
from schemas.store import ALL, ListWrite
from schemas.wire.codecs import json_codec
from udfs.consent import ConsentVerdict, apply_consent
from udfs.elements import ConsentRecord, EventRecord
from udfs.ingest import consent_record
from udfs.learning import EXAMPLES_PER_SECOND, Teaching
from udfs.online_model import OnlineModel
from udfs.operators.learning_keeper import SUMS_EVERY_MS
from udfs.operators.patience import Patience
from udfs.popularity import Popularity, PopularityTable, sum_by_segment, weighing
from udfs.profile import Outcome, take
from udfs.ranking import PopularItems, Ranker
from udfs.state import UserState

WRITES_MAX: Final = 1_000
BUCKETS: Final = 4
"""Of the job: each has its own share of examples."""


class BareTotals(msgspec.Struct):
    """The outcomes of the interactions."""

    sent: int = 0
    accepted: int = 0
    duplicates: int = 0
    others: int = 0
    lists: int = 0


class School:
    """Learning in one process: the same lessons and examples as in the job, merged once a second."""

    def __init__(self, model: OnlineModel, settings: Settings) -> None:
        self._model, self._rules = model, settings.lists
        self._learner = Learner(settings.learn.items_max, settings.learn.pair_rows_max)
        self._lessons: list[Lesson] = []
        self._gradients = Gradients()
        self._learned_ms = self._examples = 0

    def learn(self, teaching: Teaching, users: Collection[str], now_ms: int) -> None:
        """Take the lessons of a batch; merge them, and follow, when a second has passed."""
        self._lessons += teaching.lessons(users)
        examples = teaching.examples(users)[: max(0, EXAMPLES_PER_SECOND * BUCKETS - self._examples)]
        self._examples += len(examples)
        self._gradients.add(self._model.gradients(examples, self._rules))
        if now_ms - self._learned_ms < SUMS_EVERY_MS or not self._lessons:
            return
        update = self._learner.learn([sum_lessons(self._lessons, self._gradients)], now_ms)
        self._model.apply([update])
        self._lessons, self._gradients, self._learned_ms, self._examples = [], Gradients(), now_ms, 0


class PlainConsumer:
    """The whole product in one object. Call order: consents(), then interactions() once per batch."""

    def __init__(self, settings: Settings, epoch: int) -> None:
        shelf, popular = open_shelf(settings)
        model = shelf.own[DEFAULT]
        self._settings = settings
        self._epoch = epoch
        self._model = model
        self._school = School(model, settings) if isinstance(model, OnlineModel) else None
        self._ranker = Ranker(settings.lists, settings.profile, epoch)
        self._codec = json_codec()
        self._pseudonymiser = Pseudonymiser(load_key_ring(settings.privacy.key_ring))
        self._store = open_store(settings, epoch)
        self._patiently = Patience(settings.redis.outage_max_ms)
        self._users: dict[str, UserState] = {}
        self._popular = popular
        self._tables: dict[str, PopularityTable] = {}
        self._published_at = time.monotonic()
        self.totals = BareTotals()

    def consents(self, records: list[Any]) -> None:
        """Apply a batch of consents, here and in Redis."""
        in_force = []
        for record in records:
            change, _ = self._codec.consent(record.value)
            pseudonym = self._pseudonymiser.user(change.user_id)
            known = consent_record(change, pseudonym, (record.timestamp, record.partition, record.offset))
            if apply_consent(self._users.setdefault(pseudonym, UserState()), known) == ConsentVerdict.APPLIED:
                in_force.append(known)
        self._write(in_force, [])

    def interactions(self, records: list[Any]) -> None:
        """Process a batch of interactions, score each changed user once, write all lists in one round trip."""
        users, bounds, totals = self._users, self._settings.profile, self.totals
        accepted, moved = [], {}
        teaching = None if self._school is None else Teaching()
        for record in records:
            event = self._decode(record)
            state = users.get(event.pseudonym)
            before = None if teaching is None else teaching.before(state, event)
            outcome = take(state, event, bounds)
            if outcome <= Outcome.MOVED:
                accepted.append(event)
                if outcome == Outcome.MOVED:
                    moved[event.pseudonym] = state
                    if teaching is not None and before is not None:
                        teaching.accepted(event, before)
            elif outcome == Outcome.DUPLICATE:
                totals.duplicates += 1
            else:
                totals.others += 1
        now_ms = time.time_ns() // 1_000_000
        list_ttl_ms = self._settings.refresh.list_ttl_ms
        lists = self._ranker.rank(moved, self._popular, self._model, now_ms, list_ttl_ms)  # type: ignore[arg-type]
        self._write([], lists)
        if self._school is not None and teaching is not None:
            self._school.learn(teaching, moved, now_ms)
        totals.sent += len(records)
        totals.accepted += len(accepted)
        totals.lists += len(lists)
        self._sum_up(accepted, now_ms)

    def _write(self, consents: list[ConsentRecord], lists: list[ListWrite]) -> None:
        """Use pipelines small enough for Redis to respond well within the timeout, even on a busy machine."""
        for begin in range(0, max(len(consents), len(lists)), WRITES_MAX):
            end = begin + WRITES_MAX
            some = consents[begin:end], lists[begin:end]
            self._patiently(functools.partial(self._store.write, *some, want_popular=False, token=""), lambda: None)

    def _decode(self, record: Any) -> EventRecord:
        """Decode, validate and pseudonymise; the workload has no invalid records, so raising suffices."""
        event, _ = self._codec.interaction(record.value)
        if not EVENT_TS_MIN <= event.ts <= record.timestamp + FUTURE_SKEW_MAX_MS:
            raise ValueError("a bad time")
        hashes = self._pseudonymiser
        pseudonym = hashes.user(event.user_id)
        segments = [f"surface:{event.surface}"] if event.surface else []
        if event.context and (country := event.context.get("country")):
            segments.append(f"country:{country}")
        return EventRecord(
            pseudonym,
            hashes.event(event.event_id),
            KIND_OF[event.type],
            event.ts,
            record.timestamp,
            record.partition,
            record.offset,
            hash(pseudonym) % USER_BITS,
            event.item_id,
            None if event.session_id is None else hashes.session(event.session_id),
            tuple(segments),
            b"",
            event.schema_v,
        )

    def _sum_up(self, accepted: list[EventRecord], now_ms: int) -> None:
        """Merge the sums of a batch; publish them once a second."""
        popularity = self._settings.popularity
        for sums in sum_by_segment(weighing(accepted), popularity.half_life_ms):
            table = self._tables.get(sums.segment)
            if table is None:
                table = self._tables[sums.segment] = PopularityTable(Popularity(), popularity)
            table.merge([sums], now_ms)
        if time.monotonic() - self._published_at >= popularity.publish_every_ms / 1000:
            self._published_at = time.monotonic()
            self._publish()

    def _publish(self) -> None:
        name, ttl_ms, now_ms = msgspec.json.encode("popularity"), 7 * 86_400_000, time.time_ns() // 1_000_000
        for segment, table in self._tables.items():
            top = table.top()
            if not top:
                continue
            ids, fragments = [item for item, _ in top], [item_fragment(item) for item, _ in top]
            weights = [round(weight, 4) for _, weight in top]
            payload = encode_list(now_ms, self._epoch, name, now_ms, "popular", fragments, weights)
            self._store.write_popular(segment, self._epoch, now_ms, ttl_ms, payload)
            if segment == ALL:
                self._popular = PopularItems(ids, fragments, weights)


def drain(reading: Any, count: int, batch: int, handle: Any) -> None:
    """Pass exactly `count` records to `handle`, one poll at a time, at most `batch` records per poll.

    The job's marks, which are in `consents`, are skipped.
    """
    left = count
    while left:
        polled = reading.poll(timeout_ms=1_000, max_records=min(batch, left))
        records = [record for its_records in polled.values() for record in its_records if record.key != MARK_KEY]
        if records:
            handle(records)
            left -= len(records)


def pause(line: dict[str, Any]) -> None:
    """Notify the harness, and wait for its response."""
    print(msgspec.json.encode(line).decode(), flush=True)
    sys.stdin.readline()


def main() -> None:
    """Consents, warm-up, pause, the rest, pause."""
    parser = argparse.ArgumentParser(prog="python -m bench.bare")
    parser.add_argument("--settings", type=Path, required=True)
    parser.add_argument("--batch", type=int, default=10_000)
    for name in ("--consents", "--events", "--pause-after"):
        parser.add_argument(name, type=int, required=True)
    options = parser.parse_args()
    settings = load_settings(options.settings)
    plain = PlainConsumer(settings, time.time_ns() // 1_000_000)
    servers, topics = settings.kafka.bootstrap_servers, settings.topic_names()
    # The job commits its offsets at checkpoints, a plain consumer each 5 s, too. It trusts the broker's checksums.
    committing = {"group_id": "plain", "enable_auto_commit": True, "check_crcs": False}
    reading = consumer(servers, topics.consents, **committing)
    drain(reading, options.consents, options.batch, plain.consents)
    reading.close()
    reading = consumer(servers, topics.interactions, **committing)
    drain(reading, options.pause_after, options.batch, plain.interactions)
    pause(msgspec.structs.asdict(plain.totals))
    drain(reading, options.events - options.pause_after, options.batch, plain.interactions)
    pause(msgspec.structs.asdict(plain.totals))
    reading.close()


if __name__ == "__main__":
    main()

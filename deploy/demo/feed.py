"""The sender thread of the demo: sends the simulated shop's events in real time, or the rows of a file."""

import threading
import time
from collections.abc import Iterator, Sequence
from heapq import merge
from pathlib import Path
from queue import SimpleQueue
from typing import Final

import msgspec

from adapters.kafka.settings import KafkaSettings
from deploy.demo import shop
from deploy.demo.dirt import RecordToSend, dirty
from deploy.demo.producer import Producer
from deploy.demo.receipts import waiting_for_consents
from deploy.demo.replay import Choice, Replay, ReplayCounts
from deploy.demo.storefront import Storefront, pace_for
from deploy.demo.table import Mapping
from schemas.consents import ConsentChange
from schemas.events import Interaction
from schemas.pseudonyms import Pseudonymiser
from schemas.wire.codecs import BadRecord, json_codec

LATE_MAX_MS: Final = 5_000
"""After a pause (such as a suspended laptop) the shop continues from the current time and skips the missed events."""

JOIN_TIMEOUT_S: Final = 3.0


class Feed(threading.Thread):
    """Sends until stopped or finished. `sent` counts interactions; a failure ends it and is stored in `error`.

    The followed shopper's actions are put into `actions` once they have been sent.
    """

    def __init__(self, producer: Producer, followed: str) -> None:
        super().__init__(name="feed", daemon=True)
        self._producer = producer
        self._followed = followed.encode()
        self._stopping = threading.Event()
        self.actions: SimpleQueue[Interaction] = SimpleQueue()
        self.sent = 0
        self.notice = ""
        self.remarks: tuple[str, ...] = ()
        self.error: Exception | None = None

    def run(self) -> None:
        """The thread's main function."""
        try:
            self.feed()
        except Exception as error:  # raised again by the thread that draws the screen
            self.error = error

    def feed(self) -> None:
        """Send everything; return early if stopped."""
        raise NotImplementedError

    def stop(self) -> None:
        """Stop the thread."""
        self._stopping.set()
        if self.ident is not None:
            self.join(JOIN_TIMEOUT_S)


class ShopFeed(Feed):
    """The simulated shop, live: each event is sent at its event time.

    Shoppers see the lists of `storefront`. `sent` interactions were sent before.
    """

    def __init__(
        self,
        producer: Producer,
        shoppers: Sequence[shop.Shopper],
        rate: float,
        seed: int,
        storefront: Storefront,
        sent: int = 0,
    ) -> None:
        super().__init__(producer, shoppers[0].user_id)
        self._shoppers = shoppers
        self._pace = pace_for(rate, len(shoppers))
        self._seed = seed
        self._storefront = storefront
        self.sent = sent

    def feed(self) -> None:
        """See :class:`Feed`."""
        start_ms = _now_ms()
        events = self._storefront.events(shop.events(self._shoppers, start_ms, self._seed, self._pace))
        changes = shop.consent_changes(self._shoppers, start_ms, self._seed)
        both: Iterator[RecordToSend | ConsentChange] = merge(
            dirty(events, self._seed), changes, key=lambda each: each.ts
        )
        for each in both:
            if not self._wait_until(each.ts):
                return
            if isinstance(each, ConsentChange):
                self._producer.send_consent(each)
            elif _now_ms() - each.ts <= LATE_MAX_MS:
                self._send(each)

    def _send(self, record: RecordToSend) -> None:
        self._producer.send_raw_interaction(record.key, record.payload)
        self._producer.check()
        self.sent += 1
        if record.key == self._followed and record.event is not None:
            self.actions.put(record.event)

    def _wait_until(self, ts: int) -> bool:
        ahead_ms = ts - _now_ms()
        if ahead_ms > 0:
            self._stopping.wait(ahead_ms / 1000)
        return not self._stopping.is_set()


class FileFeed(Feed):
    """The rows of a user's file: first the consents, then, after their receipts, all rows."""

    def __init__(
        self,
        producer: Producer,
        followed: str,
        path: Path,
        mapping: Mapping,
        choice: Choice,
        speed: float | None,
        kafka: KafkaSettings,
        pseudonymiser: Pseudonymiser,
    ) -> None:
        super().__init__(producer, followed)
        self._path, self._mapping, self._choice, self._speed = path, mapping, choice, speed
        self._kafka, self._pseudonymiser = kafka, pseudonymiser
        self._decode = json_codec().interaction

    def feed(self) -> None:
        """See :class:`Feed`."""
        replay = Replay(self._producer, self._say, self._stopping.is_set, self._on_row)
        with waiting_for_consents(self._kafka) as waiter:
            replay.send_consents(self._path, self._mapping, self._choice, waiter, self._pseudonymiser, _now_ms())
        if not self._stopping.is_set():
            counts = replay.send_rows(self._path, self._mapping, self._speed)
            self.finish(counts)

    def finish(self, counts: ReplayCounts) -> None:
        """Report what was sent. The screen shows one line only, so rows that were not sent are reported afterwards."""
        self.remarks = counts.remarks
        hint = f"; {len(counts.remarks)} remark(s) at the end" if counts.remarks else ""
        self._say(f"all {counts.interactions:,} rows sent in {counts.seconds:.1f} s{hint}")

    def _say(self, line: str) -> None:
        self.notice = line

    def _on_row(self, key: bytes | None, payload: bytes) -> None:
        self.sent += 1
        if key != self._followed:
            return
        try:
            event, _ = self._decode(payload)
        except BadRecord:
            return
        self.actions.put(msgspec.structs.replace(event, ts=_now_ms()))


def _now_ms() -> int:
    return time.time_ns() // 1_000_000

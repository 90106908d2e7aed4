"""The sender thread of the demo: sends the simulated shop at its pace, or a file."""

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
from deploy.demo.table import Mapping
from schemas.consents import ConsentChange
from schemas.events import Interaction
from schemas.pseudonyms import Pseudonymiser
from schemas.wire.codecs import BadRecord, json_codec

LATE_MAX_MS: Final = 5_000
"""After a pause (a laptop that slept) the shop continues from now, and does not make up for what it missed."""

JOIN_TIMEOUT_S: Final = 3.0


class Feed(threading.Thread):
    """Sends until it is stopped or has nothing left. `sent` counts interactions; an error ends it and stays in `error`.

    What the followed shopper does is put into `doings` after it was sent.
    """

    def __init__(self, producer: Producer, followed: str) -> None:
        super().__init__(name="feed", daemon=True)
        self._producer = producer
        self._followed = followed.encode()
        self._stopping = threading.Event()
        self.doings: SimpleQueue[Interaction] = SimpleQueue()
        self.sent = 0
        self.notice = ""
        self.remarks: tuple[str, ...] = ()
        self.error: Exception | None = None

    def run(self) -> None:
        """The thread."""
        try:
            self.feed()
        except Exception as error:  # it is raised again where the picture is drawn
            self.error = error

    def feed(self) -> None:
        """Send everything; returns early when stopped."""
        raise NotImplementedError

    def stop(self) -> None:
        """End the thread."""
        self._stopping.set()
        if self.ident is not None:
            self.join(JOIN_TIMEOUT_S)


class ShopFeed(Feed):
    """The simulated shop, live: what happens at a time is sent at that time."""

    def __init__(self, producer: Producer, shoppers: Sequence[shop.Shopper], rate: float, seed: int) -> None:
        super().__init__(producer, shoppers[0].user_id)
        self._shoppers = shoppers
        self._pace = shop.pace_for(rate, len(shoppers))
        self._seed = seed

    def feed(self) -> None:
        """See :class:`Feed`."""
        start_ms = _now_ms()
        events = shop.events(self._shoppers, start_ms, self._seed, self._pace)
        changes = shop.second_thoughts(self._shoppers, start_ms, self._seed)
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
            self.doings.put(record.event)

    def _wait_until(self, ts: int) -> bool:
        ahead_ms = ts - _now_ms()
        if ahead_ms > 0:
            self._stopping.wait(ahead_ms / 1000)
        return not self._stopping.is_set()


class FileFeed(Feed):
    """Somebody's file: consents, their receipts, then every row."""

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
        """Tell what was sent; the picture has room for one line, so what was not taken is kept for afterwards."""
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
        self.doings.put(msgspec.structs.replace(event, ts=_now_ms()))


def _now_ms() -> int:
    return time.time_ns() // 1_000_000

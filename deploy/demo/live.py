"""The live part of the demo: consumes receipts, reads a list as a frontend does, and draws the screen until stopped."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from queue import Empty
from typing import Any, Final

import msgspec

from deploy.demo.dashboard import LIST_ROWS_MAX, SHELF_ROWS, View, render
from deploy.demo.feed import Feed
from deploy.demo.followed import Followed, NamedShelf
from deploy.demo.receipts import polled
from deploy.demo.screen import Screen
from deploy.demo.watch import JobTotals, MetricRecord, Watch
from deploy.local.errors import StackError
from deploy.local.stack import LocalStack
from schemas.pseudonyms import Pseudonymiser
from schemas.receipts import Receipt, decode_receipt
from schemas.rejects import DeadLetter
from schemas.topics import DEAD_LETTERS, METRICS
from serving.reader import Reader

POLL_MS: Final = 50
PROBE_EVERY_S: Final = 2.0
_decode_letter: Final = msgspec.json.Decoder(DeadLetter).decode
_decode_metric: Final = msgspec.json.Decoder(MetricRecord).decode


class JobProbe(threading.Thread):
    """Checks periodically whether all parts run, and queries Flink for the state of the job.

    A part that has ended is reported in `state`; a job that has ended for good sets `failure`.
    """

    def __init__(self, stack: LocalStack, job_id: str) -> None:
        super().__init__(name="job-probe", daemon=True)
        self._stack, self._job_id = stack, job_id
        self._stopping = threading.Event()
        self.state = "running"
        self.failure: str | None = None

    def run(self) -> None:
        """The thread's main function."""
        while not self._stopping.wait(PROBE_EVERY_S):
            try:
                state = self._stack.rest.state(self._job_id).lower()
                if state == "failed":
                    self.failure = self._stack.rest.exceptions(self._job_id)
            except StackError:
                state = "unreachable"
            ended = [record.name for record in self._stack.processes() if not record.is_running()]
            self.state = ", ".join([state, *(f"{name} ended" for name in ended)])

    def stop(self) -> None:
        """Stop the thread; it may wait for one more response from Flink."""
        self._stopping.set()


class Live:
    """Connects the product to the screen. `consumer` reads receipts, dead letters and metrics.

    `hint` is a command shown at the bottom of the screen.
    """

    def __init__(
        self, consumer: Any, reader: Reader, pseudonymiser: Pseudonymiser, user: str, names: Mapping[str, str]
    ) -> None:
        self._consumer, self._reader, self.user = consumer, reader, user
        self.hint = ""
        self._watch = Watch(pseudonymiser.user(user))
        self._followed = Followed(user, names)

    def receive(self) -> list[Receipt]:
        """Process what has arrived from the product; returns the receipts."""
        receipts = []
        for record in polled(self._consumer, POLL_MS):
            if record.topic.endswith(DEAD_LETTERS):
                self._watch.note_reject(_decode_letter(record.value))
                continue
            if record.topic.endswith(METRICS):
                self._watch.note_metric(_decode_metric(record.value))
                continue
            receipt = decode_receipt(record.value)
            self._watch.note(receipt, _now_ms())
            receipts.append(receipt)
        return receipts

    def totals(self) -> JobTotals:
        """What the job has counted so far."""
        return self._watch.totals()

    def open(self) -> None:
        """Show rates and latencies from now on."""
        self._watch.open()

    def show(self, feed: Feed, probe: JobProbe, screen: Screen, is_over: Callable[[], bool]) -> None:
        """Draw until `is_over`. Raises failures of the feed, of Kafka or of the job."""
        began = time.monotonic()
        with screen:
            while not is_over():
                if feed.error is not None:
                    raise feed.error
                if probe.failure is not None:
                    raise StackError(f"the job failed:\n{probe.failure}")
                self._take(feed)
                elapsed_s = time.monotonic() - began
                screen.draw(
                    lambda width, height, colour, elapsed_s=elapsed_s: render(  # type: ignore[misc]
                        self._view(feed, probe, elapsed_s), width, height, colour
                    )
                )

    def _take(self, feed: Feed) -> None:
        while True:
            try:
                self._followed.note_action(feed.actions.get_nowait())
            except Empty:
                break
        self.receive()
        self._followed.note_own(self._watch.own)
        self._followed.note_list(self._reader.recommend(self.user, LIST_ROWS_MAX), _now_ms())

    def _view(self, feed: Feed, probe: JobProbe, elapsed_s: float) -> View:
        now_ms, watch, followed = _now_ms(), self._watch, self._followed
        shown = followed.recommendation
        return View(
            now_ms=now_ms,
            elapsed_s=elapsed_s,
            job_state=probe.state,
            notice=feed.notice,
            events_per_s=watch.events_per_s(now_ms),
            lists_per_s=watch.lists_per_s(now_ms),
            trend=watch.trend(now_ms),
            latency=watch.latency(now_ms),
            sent=feed.sent,
            totals=watch.totals(),
            levels=watch.levels,
            last_reject=watch.last_reject,
            name=followed.name,
            level=watch.own_level,
            actions=followed.actions(),
            listed=followed.listed(now_ms),
            list_version=shown.version if shown else 0,
            list_reason=shown.reason if shown else "",
            list_age_ms=shown.age_ms if shown else 0,
            stories=followed.stories(),
            shelves=self._shelves(),
            feedback=watch.feedback(),
            hint=self.hint,
        )

    def _shelves(self) -> Sequence[NamedShelf]:
        """As a frontend reads them."""
        reader, item = self._reader, self._followed.last_item
        similar = None if item is None else reader.similar(item, SHELF_ROWS)
        return self._followed.shelves(
            similar, reader.trending(SHELF_ROWS), reader.recently_viewed(self.user, SHELF_ROWS)
        )


def _now_ms() -> int:
    return time.time_ns() // 1_000_000

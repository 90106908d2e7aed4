"""The progress of a job, read from its receipts: exact, and at almost no cost to the job."""

import re
import time
from typing import Final

from bench.clients import consumer
from bench.testbed import BenchTenant
from schemas import topics

LOOK_EVERY_S: Final = 0.25
_ELEMENT: Final = re.compile(rb'^\{"kind":"element","bucket":(\d+)')
_COUNTS: Final = re.compile(
    rb'"account":\{"sent":(\d+),"accepted":(\d+),"duplicates":(\d+).*"consents_applied":(\d+)', re.DOTALL
)


class Progress:
    """Totals over all buckets, from the newest receipt of each."""

    def __init__(self, tenant: BenchTenant) -> None:
        kafka = tenant.settings.kafka
        # Fetches at most every quarter of a second, because the broker's work for it counts against the job.
        self._reading = consumer(
            kafka.bootstrap_servers,
            kafka.topic(topics.RECEIPTS),
            fetch_min_bytes=2**24,
            fetch_max_wait_ms=int(LOOK_EVERY_S * 1000),
            check_crcs=False,
        )
        self._of_bucket: dict[bytes, tuple[int, ...]] = {}
        self.elements = 0

    def _poll_receipts(self) -> tuple[int, ...]:
        for records in self._reading.poll(timeout_ms=int(LOOK_EVERY_S * 1000), max_records=100_000).values():
            for record in records:
                element = _ELEMENT.match(record.value)
                if element is None:
                    continue
                self.elements += 1
                counts = _COUNTS.search(record.value, record.value.rfind(b'"account":'))
                if counts is not None:
                    numbers = tuple(int(number) for number in counts.groups())
                    self._of_bucket[element[1]] = max(numbers, self._of_bucket.get(element[1], numbers))
        return tuple(map(sum, zip(*self._of_bucket.values(), strict=True))) or (0, 0, 0, 0)

    def wait(self, sent: int = 0, consents: int = 0, timeout_s: float = 600) -> dict[str, int]:
        """Wait until this many interactions and consents are counted; returns all totals."""
        deadline = time.monotonic() + timeout_s
        while True:
            totals = dict(zip(("sent", "accepted", "duplicates", "consents"), self._poll_receipts(), strict=True))
            if totals["sent"] >= sent and totals["consents"] >= consents:
                return totals
            if time.monotonic() > deadline:
                raise TimeoutError(f"the job is at {totals}, waited for {sent} interactions, {consents} consents")
            time.sleep(LOOK_EVERY_S / 5)

    def close(self) -> None:
        """Disconnect from Kafka."""
        self._reading.close()

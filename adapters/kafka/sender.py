"""A Kafka producer that connects when it first sends, because Kafka may be down when a frontend starts."""

import atexit
import logging
import threading
import time
from collections.abc import Mapping
from typing import Any, Final

from kafka import KafkaProducer
from kafka.errors import KafkaError, KafkaTimeoutError

from adapters.kafka.settings import AWAY_AFTER_MS

CLOSE_S: Final = 10.0
"""How long closing waits for Kafka to take what is under way."""
logger = logging.getLogger(__name__)


class LazyProducer:
    """Makes one producer of kafka-python for `options`, closed at exit at the latest. Several threads may share it."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._options = {"bootstrap_timeout_ms": AWAY_AFTER_MS, "max_block_ms": AWAY_AFTER_MS, **options}
        self._made: Any = None
        self._making = threading.Lock()
        self._failure: tuple[float, KafkaError] | None = None

    def get(self) -> Any:
        """The producer; raises `KafkaError` where it cannot be made now."""
        asked_s = time.monotonic()
        with self._making:
            if self._made is None:
                if self._failure is not None and self._failure[0] > asked_s:
                    raise self._failure[1]  # who waited for an attempt does not begin the next one, one after the other
                try:
                    self._made = self._make()
                except KafkaError as error:
                    self._failure = time.monotonic(), error
                    raise
                # Kafka-python closes it at exit, too, after a second; what is registered later is called first.
                atexit.register(self.close)
            return self._made

    def _make(self) -> Any:
        made = KafkaProducer(**self._options)
        if "transactional_id" in self._options:
            made.init_transactions()
        return made

    def close(self) -> None:
        """Send what is under way, and close. Idempotent."""
        with self._making:
            made, self._made = self._made, None
            if made is None:
                return
            atexit.unregister(self.close)
            try:
                made.close(CLOSE_S)
            except KafkaTimeoutError:
                logger.warning("Kafka has not taken within %g s what was still to be sent", CLOSE_S)
                # Kafka-python gives up only what it need not flush; whose sending failed is told by their future.
                made.flush = lambda timeout=None: None
                made.close(0)

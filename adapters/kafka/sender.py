"""A Kafka producer that connects at first use, because Kafka may be down when a frontend starts."""

import atexit
import logging
import threading
import time
from collections.abc import Mapping
from typing import Any, Final

from kafka import KafkaProducer
from kafka.errors import KafkaError, KafkaTimeoutError

from adapters.kafka.settings import FIRST_REPLY_TIMEOUT_MS

CLOSE_S: Final = 10.0
"""How long closing waits for Kafka to accept pending records."""
logger = logging.getLogger(__name__)


class LazyProducer:
    """Creates one producer of kafka-python from `options`, closed at exit at the latest. Thread-safe."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._options = {
            "bootstrap_timeout_ms": FIRST_REPLY_TIMEOUT_MS,
            "max_block_ms": FIRST_REPLY_TIMEOUT_MS,
            **options,
        }
        self._made: Any = None
        self._making = threading.Lock()
        self._failure: tuple[float, KafkaError] | None = None

    def get(self) -> Any:
        """The producer; raises `KafkaError` if it cannot be created now."""
        asked_s = time.monotonic()
        with self._making:
            if self._made is None:
                if self._failure is not None and self._failure[0] > asked_s:
                    raise self._failure[1]  # callers that waited for a failed attempt do not each start another one
                try:
                    self._made = self._make()
                except KafkaError as error:
                    self._failure = time.monotonic(), error
                    raise
                # Kafka-python also closes it at exit, after a second; handlers registered later run first.
                atexit.register(self.close)
            return self._made

    def _make(self) -> Any:
        made = KafkaProducer(**self._options)
        if "transactional_id" in self._options:
            made.init_transactions()
        return made

    def close(self) -> None:
        """Send pending records, and close. Idempotent."""
        with self._making:
            made, self._made = self._made, None
            if made is None:
                return
            atexit.unregister(self.close)
            try:
                made.close(CLOSE_S)
            except KafkaTimeoutError:
                logger.warning("Kafka did not accept all pending records within %g s", CLOSE_S)
                # Kafka-python only aborts what it need not flush; callers learn of failures from their futures.
                made.flush = lambda timeout=None: None
                made.close(0)

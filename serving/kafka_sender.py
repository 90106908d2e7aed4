"""A Kafka producer that is made when something is to be sent: Kafka may be away when a frontend starts."""

import threading
from collections.abc import Mapping
from typing import Any, Final

from kafka import KafkaProducer

AWAY_AFTER_MS: Final = 5_000
"""How long a caller waits for Kafka to be found, where the options say nothing else."""


class LazyProducer:
    """Makes one producer of kafka-python for `options`. Several threads may share it."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._options = {"bootstrap_timeout_ms": AWAY_AFTER_MS, "max_block_ms": AWAY_AFTER_MS, **options}
        self._made: Any = None
        self._making = threading.Lock()

    def get(self) -> Any:
        """The producer; raises `KafkaError` where it cannot be made now."""
        with self._making:
            if self._made is None:
                made = KafkaProducer(**self._options)
                if "transactional_id" in self._options:
                    made.init_transactions()
                self._made = made
            return self._made

    def close(self, timeout_s: float | None = None) -> None:
        """Send what is under way, and close. Twice is as good as once."""
        with self._making:
            if self._made is not None:
                self._made.close(timeout_s)
                self._made = None

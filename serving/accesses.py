"""Reports a frontend's reads to the audit trail: how many lists, by which role, for which purpose, and whose.

    accesses = AccessLog({"bootstrap_servers": "…"}, role="shop frontend", purpose="recommend", share=0.01)
    reader = Reader(…, on_read=accesses.note)

Reads are counted here and reported every `every_s` by a separate thread: a read never waits for Kafka, and counts that
could not be reported are added to the next report. Needs `freshet-client[kafka]`.
"""

import logging
import random
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec
from kafka.errors import KafkaError

from adapters.kafka.sender import LazyProducer
from schemas import topics
from schemas.audit import is_name
from schemas.control import ReadsCommand

KAFKA_TIMEOUT_S: Final = 10.0
USERS_COUNTED_MAX: Final = 100_000
logger = logging.getLogger(__name__)


class AccessLog:
    """Counts reads. `share`, from 0 to 1, is the fraction of reads reported with their user; 1 reports every user.

    All reads are counted, whatever `share` is. Thread-safe. Closing it reports the rest.
    """

    def __init__(
        self,
        kafka: Mapping[str, Any],
        *,
        role: str,
        purpose: str,
        what: str = "list",
        share: float = 0.0,
        topic_prefix: str = "freshet.",
        every_s: float = 10.0,
        draw: Callable[[], float] = random.random,
    ) -> None:
        if not 0 <= share <= 1:
            raise ValueError("share must be between 0 and 1")
        if not all(map(is_name, (role, purpose, what))):
            raise ValueError("role, purpose and what need a visible character and no control characters")
        self._topic = topics.prefixed(topic_prefix, topics.CONTROL)
        self._producer = LazyProducer({"acks": "all", "linger_ms": 50, **kafka})
        self._role = role
        self._read = {"purpose": purpose, "what": what}
        self._share = share
        self._draw = draw
        self._lock = threading.Lock()
        self._of_many, self._by_user = Counter[str](), Counter[tuple[str, str]]()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._report_periodically, args=(every_s,), daemon=True)
        self._thread.start()

    def note(self, user_id: str, role: str | None = None) -> None:
        """Count a read of the list of `user_id`, by `role` if it differs from this log's."""
        role = role or self._role
        named = self._share > 0 and self._draw() < self._share
        with self._lock:
            if named and ((role, user_id) in self._by_user or len(self._by_user) < USERS_COUNTED_MAX):
                self._by_user[role, user_id] += 1
            else:
                self._of_many[role] += 1

    def close(self) -> None:
        """Report the rest, and stop the thread."""
        self._closing.set()
        self._thread.join()
        self._producer.close()

    def _report_periodically(self, every_s: float) -> None:
        while not self._closing.wait(every_s):
            self._report()
        self._report()

    def _report(self) -> None:
        with self._lock:
            of_many, by_user = self._of_many, self._by_user
            self._of_many, self._by_user = Counter(), Counter()
        reads = [ReadsCommand(role, **self._read, reads=n, user_id=user) for (role, user), n in by_user.items()]
        reads += [ReadsCommand(role, **self._read, reads=n) for role, n in of_many.items()]
        pending = [(command, self._send(command)) for command in reads]
        for command, sent in pending:
            if not _is_acknowledged(sent):
                self._count_again(command)

    def _send(self, command: ReadsCommand) -> Any:
        """Start sending; None if that failed."""
        try:
            return self._producer.get().send(self._topic, msgspec.json.encode(command))
        except KafkaError:
            return None

    def _count_again(self, command: ReadsCommand) -> None:
        with self._lock:
            if command.user_id is None or len(self._by_user) >= USERS_COUNTED_MAX:
                self._of_many[command.role] += command.reads
            else:
                self._by_user[command.role, command.user_id] += command.reads


def _is_acknowledged(sent: Any) -> bool:
    """Whether Kafka acknowledged it; only the log's own thread waits."""
    try:
        return sent is not None and sent.get(KAFKA_TIMEOUT_S) is not None
    except KafkaError as error:
        logger.warning(
            "reads could not be reported to the audit trail (%s); they will be reported later", type(error).__name__
        )
        return False

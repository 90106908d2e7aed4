"""Sends interactions, validated as the job validates them: invalid ones raise and are never sent.

    with EventProducer({"bootstrap_servers": "…"}) as events:
        events.record(Interaction("id-1", "click", ts, "ada", item_id="tea"))
        events.record_all([…])       # waits until all are acknowledged
        events.send(Interaction(…))  # does not wait; closing the producer sends what is pending

Sending is idempotent and acknowledged by all replicas; the key is the user. Needs `freshet-client[kafka]`.
"""

import math
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Final, NamedTuple, Self

from kafka.errors import KafkaError

from adapters.kafka.sender import LazyProducer
from adapters.schema_sources import writer_of
from schemas import topics
from schemas.errors import InvalidEvent, NotAcknowledged, SettingsError
from schemas.events import Interaction
from schemas.rejects import RejectReason
from schemas.wire.codecs import check_event_time, json_codec
from schemas.wire.writers import AS_JSON, WriteSettings
from serving.forms import Form

KAFKA_TIMEOUT_S: Final = 10.0
TRANSACTION_ADVICE: Final = "; if that fails, too, another producer has taken over the transactional_id: make a new one"
_codec: Final = json_codec().interaction


def _decode(raw: bytes) -> tuple[Interaction, bool]:
    event, unknown_fields = _codec(raw)
    check_event_time(event.ts, time.time_ns() // 1_000_000)
    return event, unknown_fields


_FORM: Final = Form(
    "interactions",
    _decode,
    Interaction,
    InvalidEvent,
    {
        RejectReason.MISSING_ITEM: "this type of interaction needs `item_id`",
        RejectReason.CONTROL_CHARACTER: "ids, `query` and the values of `context` have no control characters",
        RejectReason.TIME_IN_FUTURE: "`ts` is in the future: use milliseconds since the epoch",
        RejectReason.TIME_TOO_OLD: "`ts` is before the year 2000: use milliseconds since the epoch",
    },
)


class RecordedEvent(NamedTuple):
    """The position of an interaction in `interactions`; `append_ts` in ms since the epoch."""

    append_ts: int
    partition: int
    offset: int


class EventProducer:
    """Sends interactions. Thread-safe. Close it, or leave its context; pending records are also sent at exit.

    `kafka`: options of kafka-python's producer. With a `transactional_id`, :meth:`record_all` is all or nothing;
    each producer needs its own id, because a second producer with the same id fences the first. `input`: the job's
    input settings, which set the format of records. Raises :class:`SettingsError` if the job could not read them.
    """

    def __init__(
        self,
        kafka: Mapping[str, Any],
        *,
        topic_prefix: str = "freshet.",
        transactional_id: str | None = None,
        input: WriteSettings = AS_JSON,
    ) -> None:
        self._write = writer_of(input).interaction
        options = {"acks": "all", "enable_idempotence": True, "linger_ms": 2, **kafka}
        self._transactional = transactional_id is not None
        if self._transactional:
            options["transactional_id"] = transactional_id
        self._producer = LazyProducer(options)
        self._topic = topics.prefixed(topic_prefix, topics.INTERACTIONS)
        self._in_transaction = threading.Lock()
        self._closing = weakref.finalize(self, self._producer.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def send(self, event: Interaction) -> "Future[RecordedEvent]":
        """Send one without waiting: the future holds its position, or :class:`NotAcknowledged`. Not for transactions.

        Raises :class:`InvalidEvent`, :class:`SettingsError` with a `transactional_id`, and :class:`NotAcknowledged` if
        sending cannot even start.
        """
        if self._transactional:
            raise SettingsError("a producer with a transactional_id must send with record_all")
        checked = checked_event(event)
        recorded: Future[RecordedEvent] = Future()
        try:
            sent = self._producer.get().send(self._topic, self._write(checked), _key(checked))
        except KafkaError as error:
            raise _not_acknowledged(error) from None
        sent.add_callback(lambda at: recorded.set_result(RecordedEvent(at.timestamp, at.partition, at.offset)))
        sent.add_errback(lambda error: recorded.set_exception(_not_acknowledged(error)))
        return recorded

    def record(self, event: Interaction) -> RecordedEvent:
        """Send one and wait until it is acknowledged.

        Raises :class:`InvalidEvent`, and :class:`NotAcknowledged` if Kafka did not answer: sending it again is safe,
        because the job counts an `event_id` once.
        """
        return self.record_all([event])[0]

    def record_all(self, events: Sequence[Interaction]) -> list[RecordedEvent]:
        """Send many and wait until all are acknowledged; if one is invalid, none is sent."""
        checked = [checked_event(event) for event in events]
        return self.send_all(checked)

    def send_all(
        self, checked: Sequence[Interaction], headers: Sequence[tuple[str, bytes]] = ()
    ) -> list[RecordedEvent]:
        """As :meth:`record_all`, for interactions already validated by :func:`checked_event` or :func:`read_event`.

        The job reads the `headers` `x-request-id` and `traceparent` of records.
        """
        try:
            if not self._transactional:
                return self._send_and_wait(checked, headers)
            with self._in_transaction:
                return self._send_in_transaction(checked, headers)
        except KafkaError as error:
            raise _not_acknowledged(error, TRANSACTION_ADVICE if self._transactional else "") from None

    def flush(self) -> None:
        """Wait until nothing is pending."""
        self._producer.get().flush()

    def close(self) -> None:
        """Send what is pending, and close."""
        self._closing()

    def _send_in_transaction(
        self, checked: Sequence[Interaction], headers: Sequence[tuple[str, bytes]]
    ) -> list[RecordedEvent]:
        producer = self._producer.get()
        producer.begin_transaction()
        try:
            recorded = self._send_and_wait(checked, headers)
            producer.commit_transaction()
        except BaseException:
            producer.abort_transaction()
            raise
        return recorded

    def _send_and_wait(
        self, checked: Sequence[Interaction], headers: Sequence[tuple[str, bytes]]
    ) -> list[RecordedEvent]:
        producer, added = self._producer.get(), list(headers)
        pending = [producer.send(self._topic, self._write(one), _key(one), added) for one in checked]
        if pending:
            producer.flush(KAFKA_TIMEOUT_S)
        end_s = time.monotonic() + KAFKA_TIMEOUT_S  # for all of them together
        found = [future.get(max(0.0, end_s - time.monotonic())) for future in pending]
        return [RecordedEvent(one.timestamp, one.partition, one.offset) for one in found]


def _not_acknowledged(error: BaseException, more: str = "") -> NotAcknowledged:
    return NotAcknowledged(f"Kafka did not acknowledge the interaction ({type(error).__name__}): send it again{more}")


def checked_event(event: Interaction) -> Interaction:
    """Validate `event` as the job will; raises :class:`InvalidEvent`."""
    if not math.isfinite(event.value or 0.0):  # JSON has no such number, and the encoder does not report it
        raise InvalidEvent(RejectReason.OUT_OF_RANGE.value, "`value` is not a number")
    return read_event(_FORM.encoded(event))


def read_event(raw: bytes) -> Interaction:
    """Decode an interaction from JSON; raises :class:`InvalidEvent`. An unknown field is an error."""
    return _FORM.read(raw)


def _key(event: Interaction) -> bytes:
    return event.user_id.encode()

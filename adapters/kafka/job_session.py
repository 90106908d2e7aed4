"""Sends requests to the running job on `control`; replies arrive on `receipts`, a person's data on `answers`."""

import contextlib
import uuid
from collections.abc import Callable, Iterator
from typing import Any, Self, TypeVar

import msgspec
from kafka import KafkaProducer

from adapters.kafka.reading import OnPoll, do_nothing
from adapters.kafka.settings import KafkaSettings, python_kafka_options
from adapters.kafka.settled_topic import Tail
from schemas import topics
from schemas.answers import StateAnswer, decode_answer
from schemas.control import AccessCommand, BucketCommand, UserCommand
from schemas.errors import JobSilent
from schemas.receipts import Receipt, decode_receipt

ANSWER_TIMEOUT_S = 60.0
R = TypeVar("R", bound=Any)


class JobSession:
    """A session with a job of `buckets` buckets. A context manager; reads `receipts` from its current end."""

    def __init__(self, kafka: KafkaSettings, buckets: int, timeout_s: float = ANSWER_TIMEOUT_S) -> None:
        self._buckets = buckets
        self._topic = kafka.topic(topics.CONTROL)
        self._timeout_s = timeout_s
        self._producer = KafkaProducer(**python_kafka_options(kafka), acks="all", linger_ms=5)
        try:
            self._receipts = Tail(kafka, topics.RECEIPTS)
        except BaseException:
            self._producer.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self._producer.close()
        self._receipts.close()

    def every_bucket(self, command: Callable[[int, str], BucketCommand], answer: type[R]) -> list[R]:
        """Send `command(bucket, request)` to all buckets; returns their `answer` receipts.

        Raises :class:`JobSilent` if one is missing.
        """
        request, buckets = uuid.uuid4().hex, self._buckets
        for bucket in range(buckets):
            self._send(command(bucket, request))
        self._producer.flush()
        found: dict[int, R] = {}
        for receipt in self._until_silent():
            if isinstance(receipt, answer) and receipt.request == request:
                found[receipt.bucket] = receipt
                if len(found) == buckets:
                    return list(found.values())
        raise JobSilent(
            f"{len(found)} of {buckets} buckets answered within {self._timeout_s:g} s: does the job run, and with the "
            "topic prefix and the number of buckets of these settings?"
        )

    def send_all(self, commands: Iterator[UserCommand], on_sent: Callable[[int], None]) -> int:
        """Send commands that have no reply; returns how many. Calls `on_sent` from time to time."""
        sent = 0
        for sent, command in enumerate(commands, start=1):
            self._send(command)
            if sent % 10_000 == 0:
                on_sent(sent)
        self._producer.flush()
        return sent

    def send(self, command: BucketCommand) -> None:
        """Send one command that has no reply, and wait until it is in the topic."""
        self._send(command)
        self._producer.flush()

    def _send(self, command: BucketCommand | UserCommand) -> None:
        self._producer.send(self._topic, msgspec.json.encode(command))

    def _until_silent(self) -> Iterator[Receipt]:
        for record in self._receipts.records(self._timeout_s):
            yield decode_receipt(record.value)


def state_of(
    kafka: KafkaSettings, command: AccessCommand, timeout_s: float = ANSWER_TIMEOUT_S, on_poll: OnPoll = do_nothing
) -> StateAnswer:
    """The job's state of one user. `on_poll` is called during the wait, and may raise to end it.

    Raises :class:`JobSilent` if there is no reply within `timeout_s`.
    """
    request = command.request.encode()
    producer = KafkaProducer(**python_kafka_options(kafka), acks="all", linger_ms=5)
    try:
        with contextlib.closing(Tail(kafka, topics.ANSWERS)) as answers:
            producer.send(kafka.topic(topics.CONTROL), msgspec.json.encode(command))
            producer.flush(timeout_s)
            for record in answers.records(timeout_s, on_poll):
                if request in (record.value or b"") and isinstance(answer := decode_answer(record.value), StateAnswer):
                    return answer
    finally:
        producer.close(timeout_s)
    raise JobSilent(f"no answer within {timeout_s:g} s: is the job running with these settings?")

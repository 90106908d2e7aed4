"""Asking the running job: commands go to `control`, answers come on `receipts` (design: topics are the only way in)."""

import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import msgspec
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from jobs.settings import Settings, python_kafka_options
from schemas import topics
from schemas.control import AccessCommand, BucketCommand, UserCommand
from schemas.errors import JobSilent, SettingsError
from schemas.receipts import Receipt, decode_receipt

ANSWER_TIMEOUT_S = 60.0
R = TypeVar("R", bound=Any)


class Asking:
    """One conversation with the job. Opens at the end of `receipts`; close it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        options = python_kafka_options(settings.kafka)
        self._producer = KafkaProducer(**options, acks="all", linger_ms=5)
        self._receipts = KafkaConsumer(**options, group_id=None, enable_auto_commit=False, fetch_max_wait_ms=50)
        topic = settings.kafka.topic(topics.RECEIPTS)
        partitions = [TopicPartition(topic, n) for n in self._receipts.partitions_for_topic(topic) or ()]
        if not partitions:
            raise SettingsError(f"there is no topic {topic}: check kafka.topic_prefix and kafka.bootstrap_servers")
        self._receipts.assign(partitions)
        self._receipts.seek_to_end(*partitions)
        for partition in partitions:
            self._receipts.position(partition)

    def every_bucket(self, command: type[BucketCommand], answer: type[R]) -> list[R]:
        """Ask all buckets for `answer`, which has a `bucket`; raises :class:`JobSilent` where one does not answer."""
        request, buckets = uuid.uuid4().hex, self._settings.job.buckets
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
            f"{len(found)} of {buckets} buckets answered within {ANSWER_TIMEOUT_S:g} s: does the job run, and with the "
            "topic prefix and the number of buckets of these settings?"
        )

    def one(self, command: AccessCommand, answer: type[R]) -> R:
        """Ask for one user; raises :class:`JobSilent` where there is no answer."""
        self._send(command)
        self._producer.flush()
        for receipt in self._until_silent():
            if isinstance(receipt, answer) and receipt.request == command.request:
                return receipt
        raise JobSilent(f"no answer within {ANSWER_TIMEOUT_S:g} s: does the job run, and with these settings?")

    def tell(self, commands: Iterator[UserCommand], on_sent: Callable[[int], None]) -> int:
        """Send commands that have no answer; returns how many. `on_sent` is told now and then."""
        sent = 0
        for sent, command in enumerate(commands, start=1):
            self._send(command)
            if sent % 10_000 == 0:
                on_sent(sent)
        self._producer.flush()
        return sent

    def send(self, command: BucketCommand) -> None:
        """Send one command that has no answer, and wait until it is in the topic."""
        self._send(command)
        self._producer.flush()

    def close(self) -> None:
        """Close the clients."""
        self._producer.close()
        self._receipts.close()

    def _send(self, command: BucketCommand | UserCommand) -> None:
        self._producer.send(self._settings.kafka.topic(topics.CONTROL), msgspec.json.encode(command))

    def _until_silent(self) -> Iterator[Receipt]:
        end = time.monotonic() + ANSWER_TIMEOUT_S
        while time.monotonic() < end:
            batches: Sequence[Any] = list(self._receipts.poll(timeout_ms=200).values())
            yield from (decode_receipt(record.value) for batch in batches for record in batch)

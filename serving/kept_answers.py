"""Collected data of a person, kept in the topic `answers` for the requester, on any gateway.

A request is a record there, and its place in the topic is its id. So two gateways that get the same request at the same
time can tell from the order of the records which one handles it, and a third one can find the result.
"""

import contextlib
import hashlib
import re
import secrets
import time
from collections.abc import Collection, Iterator
from typing import Any, Final, NamedTuple

import msgspec
from kafka import TopicPartition

from adapters.kafka.reading import open_consumer, partitions_of
from adapters.kafka.sender import LazyProducer
from adapters.kafka.settings import KafkaSettings, python_kafka_options
from schemas import topics
from schemas.answers import CollectionFailed, CollectionStarted, DocumentPart, decode_answer, encode_answer
from schemas.errors import JobSilent

PART_BYTES: Final = 384 * 1024
"""In Base64 and with its field names, this is half of a broker's default maximum record size."""
KAFKA_TIMEOUT_S: Final = 10.0
NONCE_BYTES: Final = 16
_ID: Final = re.compile(r"([0-9]{1,5})-([0-9]{1,18})-([0-9a-f]{32})")


class Requester(NamedTuple):
    """The requester of a person's data, as digests, so that the topic contains no names.

    `owner` identifies requester, role and user; only the owner gets the answer. `same` also covers the purpose: a
    repeated request joins the one in progress.
    """

    owner: str
    same: str


def requester(subject: str, role: str, pseudonym: str, purpose: str = "") -> Requester:
    """The digests for a request for the data of the user called `pseudonym`."""
    return Requester(_digest(subject, role, pseudonym), _digest(subject, role, pseudonym, purpose))


def _digest(*words: str) -> str:
    return hashlib.sha256(msgspec.json.encode(words)).hexdigest()


class Ticket(NamedTuple):
    """A request's id in parts: the place of its record in `answers`, and the nonce that later records refer to."""

    partition: int
    offset: int
    nonce: str

    @property
    def id(self) -> str:
        """The id that clients get.

        >>> read_ticket(Ticket(3, 17, "0" * 32).id)
        Ticket(partition=3, offset=17, nonce='00000000000000000000000000000000')
        """
        return f"{self.partition}-{self.offset}-{self.nonce}"


def read_ticket(id: str) -> Ticket | None:
    """Parse an id; None if it is invalid.

    >>> read_ticket("1-2-3"), read_ticket("")
    (None, None)
    """
    found = _ID.fullmatch(id)
    return None if found is None else Ticket(int(found[1]), int(found[2]), found[3])


class KeptAnswer(NamedTuple):
    """The answer to a request registered at `taken_in_ms` (broker's clock); None while data is being collected."""

    answer: bytes | CollectionFailed | None
    taken_in_ms: int


class KeptAnswers:
    """The requests and answers of a tenant. Requests older than `lasts_s` have ended, whatever happened. Close it.

    Blocks; thread-safe. Raises :class:`schemas.errors.FreshetError`, and `KafkaError` if Kafka does not answer.
    """

    def __init__(self, kafka: KafkaSettings, lasts_s: float) -> None:
        self._kafka, self._lasts_ms = kafka, int(1000 * lasts_s)
        self._topic = kafka.topic(topics.ANSWERS)
        self._producer = LazyProducer({"acks": "all", "enable_idempotence": True, **python_kafka_options(kafka)})

    def register(self, pseudonym: str, requester: Requester) -> tuple[Ticket, bool]:
        """Register a request; returns its ticket, and whether it is new: then the caller must collect the data."""
        nonce = secrets.token_hex(NONCE_BYTES)
        at = self._send(pseudonym, CollectionStarted(nonce, *requester))
        mine = Ticket(at.partition, at.offset, nonce)
        first = self._find_pending(mine, requester.same, at.timestamp)
        if first is None:
            return mine, True
        self.give_up(mine, pseudonym, "another request for the same was under way")
        return first, False

    def _find_pending(self, mine: Ticket, same: str, taken_in_ms: int) -> Ticket | None:
        """The oldest unfinished request for the same data before `mine`."""
        partition = TopicPartition(self._topic, mine.partition)
        found: dict[str, Ticket] = {}
        with contextlib.closing(open_consumer(self._kafka)) as consumer:
            consumer.assign([partition])
            begin = consumer.offsets_for_times({partition: max(0, taken_in_ms - self._lasts_ms)})[partition]
            consumer.seek(partition, mine.offset if begin is None else min(begin.offset, mine.offset))
            for record in _up_to(consumer, partition, mine.offset):
                answer = _read(record)
                if isinstance(answer, CollectionStarted) and answer.same == same:
                    found[answer.nonce] = Ticket(record.partition, record.offset, answer.nonce)
                elif isinstance(answer, CollectionFailed) or (isinstance(answer, DocumentPart) and _is_last(answer)):
                    found.pop(answer.nonce, None)
        return next(iter(found.values()), None)

    def finish(self, ticket: Ticket, pseudonym: str, document: bytes) -> None:
        """Store `document` as the answer to the request."""
        pieces = [document[at : at + PART_BYTES] for at in range(0, len(document), PART_BYTES)]
        for number, piece in enumerate(pieces):
            # Strictly in order: the last part marks the answer as complete.
            self._send(pseudonym, DocumentPart(ticket.nonce, number, len(pieces), piece), ticket.partition)

    def give_up(self, ticket: Ticket, pseudonym: str, why: str) -> None:
        """Record that the request will get no answer."""
        self._send(pseudonym, CollectionFailed(ticket.nonce, why), ticket.partition)

    def look_up(self, ticket: Ticket, owners: Collection[str]) -> KeptAnswer | None:
        """The status of a request of one of `owners`, the digests for all names of a user.

        None if the request does not exist, has expired, or belongs to someone else.
        """
        partition = TopicPartition(self._topic, ticket.partition)
        with contextlib.closing(open_consumer(self._kafka)) as consumer:
            if partition not in partitions_of(consumer, self._topic):
                return None
            consumer.assign([partition])
            end = consumer.end_offsets([partition])[partition]
            if not consumer.beginning_offsets([partition])[partition] <= ticket.offset < end:
                return None
            consumer.seek(partition, ticket.offset)
            records = _up_to(consumer, partition, end)
            first = next(records, None)
            if first is None or first.offset != ticket.offset:
                return None
            opened = _read(first)
            if not isinstance(opened, CollectionStarted) or opened.nonce != ticket.nonce or opened.owner not in owners:
                return None
            found = _answer_in(records, ticket.nonce)
        if found is None and time.time_ns() // 1_000_000 > first.timestamp + self._lasts_ms:
            found = CollectionFailed(ticket.nonce, "the gateway that collected this has shut down: request it again")
        return KeptAnswer(found, first.timestamp)

    def _send(
        self, pseudonym: str, answer: CollectionStarted | DocumentPart | CollectionFailed, partition: int | None = None
    ) -> Any:
        sent = self._producer.get().send(
            self._topic, key=pseudonym.encode(), value=encode_answer(answer), partition=partition
        )
        return sent.get(KAFKA_TIMEOUT_S)

    def close(self) -> None:
        """Close the producer."""
        self._producer.close()


def _is_last(part: DocumentPart) -> bool:
    return part.number == part.parts - 1


def _answer_in(records: Iterator[Any], nonce: str) -> bytes | CollectionFailed | None:
    parts: dict[int, bytes] = {}
    for record in records:
        answer = _read(record) if nonce.encode() in (record.value or b"") else None
        if isinstance(answer, CollectionFailed) and answer.nonce == nonce:
            return answer
        if isinstance(answer, DocumentPart) and answer.nonce == nonce:
            parts[answer.number] = answer.content
            if len(parts) == answer.parts:
                return b"".join(parts[number] for number in sorted(parts))
    return None


def _read(record: Any) -> Any:
    try:
        return decode_answer(record.value or b"")
    except msgspec.DecodeError:  # a kind that only another release knows
        return None


def _up_to(consumer: Any, partition: TopicPartition, end: int) -> Iterator[Any]:
    """The records before `end`, from the consumer's position."""
    by_s = time.monotonic() + KAFKA_TIMEOUT_S
    while consumer.position(partition) < end:
        if time.monotonic() > by_s:
            raise JobSilent(f"{partition.topic} could not be read within {KAFKA_TIMEOUT_S:g} s")
        for record in consumer.poll(timeout_ms=500).get(partition, []):
            if record.offset < end:
                yield record

"""Registers a submission in the topic `deployment`: compares it with the last one and assigns its epoch.

Only the last record of the topic counts. A transactional id fences concurrent submissions: the second one aborts the
transaction of the first, and the first is refused.
"""

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

import msgspec
from kafka import OffsetAndMetadata, TopicPartition
from kafka.errors import (
    CoordinatorLoadInProgressError,
    CoordinatorNotAvailableError,
    InvalidProducerEpochError,
    InvalidTransactionTimeoutError,
    InvalidTxnStateError,
    KafkaError,
    NotCoordinatorError,
    ProducerFencedError,
)

from adapters.kafka.opening import open_admin, open_producer
from adapters.kafka.reachability import require_reachable_broker
from adapters.kafka.reading import open_consumer, partitions_of, records
from adapters.kafka.settings import KafkaSettings
from adapters.kafka.settled_topic import has_topic
from adapters.secrets.key_rings import load_key_ring
from jobs.deployment import (
    Deployment,
    complaint_about_command,
    complaint_about_record,
    complaint_about_successor,
    deployment_of,
    other_side,
)
from jobs.settings import Settings, load_settings
from schemas import topics
from schemas.audit import SignedHead
from schemas.errors import SettingsError

KEY: Final = b"deployment"
CLAIM_KEY: Final = b"submission"
SUCCESSOR_KEY: Final = b"successor"
"""The key of the job that was submitted to take over, until it has."""
TIMEOUT_MAX: Final = "transaction.max.timeout.ms"
ANSWER_S: Final = 30.0
RECENT_HEADS_MAX: Final = 5_000
HEADS_ENOUGH: Final = 100
"""With this many signed heads, all or nearly all buckets of a job are among them."""
_decode = msgspec.json.Decoder(Deployment).decode
_decode_head = msgspec.json.Decoder(SignedHead).decode


class LastSubmission(NamedTuple):
    """The newest readable record of a submission, and whether a later, unreadable record exists."""

    deployment: Deployment | None
    newest_is_unreadable: bool


class Registration:
    """A submission in progress. A context manager; :meth:`take` completes it."""

    def __init__(self, kafka: KafkaSettings, transaction_timeout_ms: int) -> None:
        """Request the transaction timeout that the sinks use, so that the brokers refuse it here if it is too long."""
        self._kafka = kafka
        self._topic = kafka.topic(topics.DEPLOYMENT)
        self._producer = open_producer(
            kafka,
            transactional_id=f"{kafka.group()}-deployment",
            transaction_timeout_ms=transaction_timeout_ms,
        )
        try:
            self._producer.init_transactions()
            self.recorded, self.newest_is_unreadable = newest_readable(kafka)
        except KafkaError as error:
            self._producer.close()
            if InvalidTransactionTimeoutError.__name__ in str(error):  # the client wraps it
                raise SettingsError(
                    f"the brokers' {TIMEOUT_MAX} is lower, {timeout_too_long(transaction_timeout_ms)}"
                ) from None
            raise _refused(kafka, error) from None
        except BaseException:
            self._producer.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self._producer.close()

    def take(self, deployment: Deployment, replace: bool) -> Deployment:
        """Record `deployment` with an epoch later than all before, and return it.

        The epoch comes from the broker's clock, so the clock of the submitting machine does not matter. Raises
        :class:`SettingsError` if `deployment` differs from the recorded one, or if the last record is unreadable,
        unless `replace` is set.
        """
        taken = self.claim(deployment, replace)
        self.record(taken)
        return taken

    def claim(self, deployment: Deployment, replace: bool) -> Deployment:
        """As :meth:`take`, but leave it to :meth:`record` to record what this returns."""
        before = self.check(deployment, replace)
        side = self.recorded.side if self.recorded is not None else ""
        return msgspec.structs.replace(deployment, epoch=max(self.clock_ms(), before + 1), side=side)

    def record(self, taken: Deployment) -> None:
        """Record what :meth:`claim` returned. Raises :class:`SettingsError` if another submission came in between."""
        with self._transaction():
            self._send(KEY, msgspec.json.encode(taken))

    def reserve(self, successor: Deployment) -> Deployment:
        """Record `successor` as the job that is to take over, with an epoch and on the other side; returns it.

        Raises :class:`SettingsError` if it cannot take over from the recorded deployment.
        """
        recorded = self.recorded
        if recorded is None or self.newest_is_unreadable:
            raise SettingsError("no running job is recorded from which another could take over: use `freshet submit`")
        raise_if(complaint_about_successor(recorded, successor))
        with self._transaction():
            epoch = max(self._send(CLAIM_KEY, b"{}"), recorded.epoch + 1)
            taken = msgspec.structs.replace(successor, epoch=epoch, side=other_side(recorded.side))
            self._send(SUCCESSOR_KEY, msgspec.json.encode(taken))
        return taken

    def promote(self, successor: Deployment) -> None:
        """Record `successor`, which has taken over, as the last submission. May be repeated."""
        with self._transaction():
            self._send(KEY, msgspec.json.encode(successor))
            self._send(SUCCESSOR_KEY, None)

    def clock_ms(self) -> int:
        """The time by the broker's clock, which dates records."""
        with self._transaction():
            return self._send(CLAIM_KEY, b"{}")

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            self._producer.begin_transaction()
            yield
            self._producer.commit_transaction()
        except (ProducerFencedError, InvalidProducerEpochError, InvalidTxnStateError):
            raise SettingsError(
                "another submission of this deployment started while this one was in progress, and wins: check that "
                "one job runs, and submit again if none does"
            ) from None
        except KafkaError as error:
            raise _refused(self._kafka, error) from None

    def check(self, deployment: Deployment, replace: bool) -> int:
        """Raise :class:`SettingsError` if :meth:`take` would refuse; returns the last epoch, 0 if there is none."""
        if self.newest_is_unreadable and not replace:
            raise _unreadable(self._kafka)
        seen = None if self.recorded and not self.newest_is_unreadable else recent_heads(self._kafka)
        if self.recorded is not None and not replace:
            raise_if(complaint_about_record(self.recorded, deployment))
        if seen is not None and not replace:
            raise_if(complaint_about_buckets(seen, deployment.buckets))
        return max(self.recorded.epoch if self.recorded else 0, *(head.epoch for head in seen or ()), 0)

    def _send(self, key: bytes, value: bytes | None) -> int:
        """Send a record; returns its append time (ms) by the broker's clock."""
        return int(self._producer.send(self._topic, key=key, value=value).get(ANSWER_S).timestamp)


def last_recorded(kafka: KafkaSettings) -> Deployment | None:
    """The deployment recorded at the last submission; None before the first one.

    If the last record is unreadable, returns the newest readable one with a warning on stderr; raises
    :class:`SettingsError` if there is none.
    """
    found = newest_readable(kafka)
    if found.newest_is_unreadable:
        if found.deployment is None:
            raise _unreadable(kafka)
        _warn(kafka, "the newest one that can be read is taken")
    return found.deployment


def newest_readable(kafka: KafkaSettings) -> LastSubmission:
    """Find the newest readable record of a submission in the topic."""
    return newest_of(record.value for record in records(kafka, topics.DEPLOYMENT) if record.key == KEY)


def successor(kafka: KafkaSettings) -> Deployment | None:
    """The job that was last submitted to take over and has not; None if there is none."""
    found = newest_of(
        record.value or b"" for record in records(kafka, topics.DEPLOYMENT) if record.key == SUCCESSOR_KEY
    )
    return None if found.newest_is_unreadable else found.deployment


def newest_of(values: Iterable[bytes | None]) -> LastSubmission:
    """Find the newest readable record among `values`, which are ordered from oldest to newest."""
    found = LastSubmission(None, False)
    for value in values:
        if value is None:
            continue
        try:
            found = LastSubmission(_decode(value), False)
        except (ValueError, RecursionError):
            found = LastSubmission(found.deployment, True)
    return found


def _warn(kafka: KafkaSettings, instead: str) -> None:
    print(f"the last record in {kafka.topic(topics.DEPLOYMENT)} cannot be read: {instead}", file=sys.stderr, flush=True)


def _unreadable(kafka: KafkaSettings) -> SettingsError:
    return SettingsError(
        f"the last record in {kafka.topic(topics.DEPLOYMENT)} cannot be read: if a later release wrote it, use that "
        "release; if not, record the deployment again, with empty state: submit without -s and with --new-deployment "
        "(profiles are lost, consents are read again from the topic)"
    )


def raise_if(complaint: str | None) -> None:
    """Raise :class:`SettingsError` with `complaint`, if there is one."""
    if complaint is not None:
        raise SettingsError(complaint)


def recent_heads(kafka: KafkaSettings) -> list[SignedHead]:
    """The last signed heads of the audit trail, which identify a deployment that has no record yet."""
    consumer = open_consumer(kafka)
    try:
        partitions = partitions_of(consumer, kafka.topic(topics.AUDIT_HEADS))
        consumer.assign(partitions)
        ends, begins = consumer.end_offsets(partitions), consumer.beginning_offsets(partitions)
        for partition in partitions:
            consumer.seek(partition, max(begins[partition], ends[partition] - RECENT_HEADS_MAX))
        return [head for value in _values(consumer, ends) if (head := _head(value)) is not None]
    finally:
        consumer.close()


def _values(consumer: Any, ends: dict[TopicPartition, int]) -> list[bytes | None]:
    found: list[bytes | None] = []
    end_s = time.monotonic() + ANSWER_S
    while any(consumer.position(partition) < end for partition, end in ends.items()):
        if time.monotonic() > end_s:
            raise SettingsError("the topic audit-heads could not be read in time: does Kafka answer?")
        found += [record.value for batch in consumer.poll(timeout_ms=500).values() for record in batch]
    return found


def _head(value: bytes | None) -> SignedHead | None:
    try:
        return _decode_head(value or b"")
    except (ValueError, RecursionError):
        return None


def complaint_about_buckets(heads: list[SignedHead], buckets: int) -> str | None:
    """Explain why a deployment whose audit trail ends with `heads` cannot have this many `buckets`; None if it can."""
    if not heads:
        return None
    epoch = max(head.epoch for head in heads)
    last = [head.bucket for head in heads if head.epoch == epoch]
    known = max(last) + 1
    if known > buckets or (len(last) >= HEADS_ENOUGH and known <= buckets // 2):
        return (
            f"job.buckets is {buckets}, and the audit trail of the last job ends in {known} buckets: set job.buckets "
            "to what that job had, or start over with empty state: submit without -s and with --new-deployment"
        )
    return None


def claim_group(kafka: KafkaSettings) -> None:
    """Claim the consumer group of these settings by committing an offset in our topic `deployment`.

    Raises :class:`SettingsError` if a job with other topics uses the group: both would have the same transactional ids,
    and each would abort the other's transactions.
    """
    group, ours = kafka.group(), {kafka.topic(topic.name) for topic in topics.TOPICS}
    admin = open_admin(kafka)
    try:
        others = sorted({partition.topic for partition in committed_offsets(admin, group)} - ours)
        if not others:
            mine = TopicPartition(kafka.topic(topics.DEPLOYMENT), 0)
            admin.alter_group_offsets(group, {mine: OffsetAndMetadata(0, "", -1)})
    except KafkaError as error:
        raise SettingsError(
            f"consumer group {group} could not be inspected ({type(error).__name__}): the user of these settings needs "
            "Read on that group"
        ) from None
    finally:
        admin.close()
    if others:
        raise SettingsError(
            f"consumer group {group} has read {others[0]}, which is not a topic of this deployment: two jobs with one "
            "group abort each other's transactions. Leave kafka.group_id out or choose another one, or delete the "
            "offsets of that topic if no job reads it any more"
        )


def committed_offsets(admin: Any, group: str) -> Any:
    """The committed offsets of `group`; retries while a new cluster is still creating the coordinator."""
    end_s = time.monotonic() + ANSWER_S
    while True:
        try:
            return admin.list_group_offsets({group: None})[group]
        except (CoordinatorNotAvailableError, CoordinatorLoadInProgressError, NotCoordinatorError):
            if time.monotonic() > end_s:
                raise
            time.sleep(0.2)


def timeout_too_long(timeout_ms: int) -> str:
    """What follows if the brokers' maximum is less than this timeout of the sinks' transactions, and how to mend it."""
    return (
        f"and the job's transactions are to stay open for {timeout_ms} ms while it is down: set {TIMEOUT_MAX}="
        f"{timeout_ms} on every broker, or kafka.transaction_timeout_ms to what they have; a job that is down for "
        "longer than that loses the audit records, clean events and dead letters of its last checkpoint"
    )


def _refused(kafka: KafkaSettings, error: KafkaError) -> SettingsError:
    return SettingsError(
        f"the submission could not be recorded in {kafka.topic(topics.DEPLOYMENT)} ({type(error).__name__}): the user "
        f"of these settings needs Read and Write on that topic, and Write on the transactional ids {kafka.group()}-…"
    )


def load_deployed(path: Path) -> Settings:
    """The settings in the file `path`, for a command about the running job.

    Raises :class:`SettingsError` if they differ from those of the last submission: with other keys, buckets or topics a
    command would find no data of a user, and report that none is left. Before the first submission nothing is compared.
    """
    settings = load_settings(path)
    require_reachable_broker(settings.kafka)
    if has_topic(settings.kafka, topics.DEPLOYMENT):
        _compare(settings, last_recorded(settings.kafka))
    return settings


def load_for_submission(path: Path) -> Settings:
    """As :func:`load_deployed`, but refuse an unreadable last record, as a submission does."""
    settings = load_deployed(path)
    if has_topic(settings.kafka, topics.DEPLOYMENT) and newest_readable(settings.kafka).newest_is_unreadable:
        raise _unreadable(settings.kafka)
    return settings


def load_for_opt_out(path: Path) -> Settings:
    """As :func:`load_deployed`, for a withdrawal or an erasure: no unreadable record blocks it.

    Both need the record only to detect a wrong settings file. So if the last record is unreadable, nothing is compared,
    and a warning on stderr says so. Buckets and the execution mode are not compared: they change while jobs do.
    """
    settings = load_settings(path)
    require_reachable_broker(settings.kafka)
    if has_topic(settings.kafka, topics.DEPLOYMENT):
        found = newest_readable(settings.kafka)
        if found.newest_is_unreadable:
            _warn(settings.kafka, "these settings are not compared with those of the last submission")
        else:
            _compare(settings, found.deployment, needs_layout=False)
    return settings


def _compare(settings: Settings, recorded: Deployment | None, needs_layout: bool = True) -> None:
    if recorded is not None:
        ring = load_key_ring(settings.privacy.key_ring)
        now = deployment_of(settings, ring, recorded.mode, recorded.topic_ids)
        raise_if(complaint_about_command(recorded, now, needs_layout))

"""Proves an erasure (GDPR, article 17) by searching every place (`freshet erase verify`).

The job erases state and Redis when it reads the record of an erasure, and :mod:`privacy.rewrite_events` removes erased
users from `events`. :func:`verify` then searches a savepoint, Redis, the topics and exports for one user. If the
receipt says effective or complete, it is also written to `receipts`.

A savepoint contains everybody's state: it is written to a folder that only this account can enter, and deleted at the
end. If an existing savepoint is searched, it must contain at least one of the users who had consented before it was
taken, instead of the canary.
"""

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec
from kafka import KafkaProducer

from adapters.kafka.reading import mentions_any, records
from adapters.kafka.settings import python_kafka_options
from adapters.schema_sources import codec_of
from adapters.secrets.key_rings import load_key_ring
from jobs.clock import clock_ms, day
from jobs.savepoints import running_job, take_savepoint
from jobs.settings import Settings
from privacy import erasure_search as search
from privacy.canary import planted
from privacy.erased_users import erased_users, witnesses
from privacy.rules.erasure import Erased, Evidence, is_older, verdict
from schemas import topics
from schemas.errors import SettingsError
from schemas.pseudonyms import Pseudonymiser
from schemas.receipts import ConsentReceipt, ErasureReceipt, decode_receipt, encode_receipt

Say = Callable[[str], None]
TIMEOUT_S: Final = 120.0
EXIT_CODES: Final = {"effective": 0, "complete": 0, "returned": 0, "incomplete": 1, "not_proved": 2}


class Where(msgspec.Struct, frozen=True):
    """Where to search besides Redis and the topics: either `flink` or `savepoint`; folders of exports and snapshots."""

    flink: str | None = None
    savepoint: Path | None = None
    work_dir: Path | None = None
    exports: Sequence[Path] = ()
    snapshots: Sequence[Path] = ()
    timeout_s: float = TIMEOUT_S


def verify(settings: Settings, user_id: str, where: Where, say: Say) -> ErasureReceipt:
    """Search for an erased user, and judge the result. Writes a proof to `receipts`.

    What would make the search impossible is found first, before anything is written.
    """
    _check_source(settings, where)
    hashes = Pseudonymiser(load_key_ring(settings.privacy.key_ring))
    names = hashes.all(user_id)
    say(f"looking for {', '.join(names)}")
    erased = erased_users(settings, hashes.all, user_id).get(names[0])
    if erased is None:
        raise SettingsError("the consents topic has no erasure of this user: record it first with `freshet erase user`")
    times = search.snapshot_times(where.snapshots)
    in_exports = {"exports": search.in_exports(settings, where.exports, user_id)} if where.exports else {}
    found, planted_found, ends_by = _searched(settings, hashes, user_id, erased, where, say)
    applied_at, now = _applied_at(settings, erased), clock_ms()
    evidence = Evidence(
        erased.erasure.append_ts,
        now,
        applied_at,
        erased.returned_at,
        erased.erasure.append_ts + settings.tombstone_ms(),
        settings.privacy.snapshots_kept_ms,
        found | in_exports,
        planted_found,
        sum(is_older(time_ms, applied_at) for time_ms in times) if where.snapshots else None,
    )
    status, reasons = verdict(evidence)
    receipt = ErasureReceipt(
        names[0], status, evidence.erased_at, now, dict(evidence.found), ends_by, reasons, status != "not_proved"
    )
    if status in ("effective", "complete"):
        _publish(settings, receipt)
    return receipt


def _searched(
    settings: Settings, hashes: Pseudonymiser, user_id: str, erased: Erased, where: Where, say: Say
) -> tuple[dict[str, int], dict[str, int], dict[str, int]]:
    """By place: counts of the user, counts of the canary, and when retention ends what was found."""
    codec = codec_of(settings.input)
    say("planting a canary")
    with planted(settings, hashes, where.timeout_s) as canary:
        with _savepoint(settings, where, say) as folder:
            say("searching the savepoint")
            # A savepoint older than the canary must contain earlier users instead.
            others = [canary.name] if where.savepoint is None else witnesses(settings, hashes.all, _taken_at(folder))
            counts = search.in_files(folder, [*erased.names, *others])
        known = len(erased.names)
        found, seen = {"savepoint": sum(counts[:known])}, {"savepoint": sum(counts[known:])}
        say("searching Redis")
        found |= search.in_redis(settings, erased.names)
        seen["redis"] = search.in_redis(settings, [canary.name]).total()
        say("searching the topics")
        of_user, of_canary = search.in_topics(
            settings,
            search.by_topic(codec, user_id, erased.names, erased.returned_at),
            search.by_topic(codec, canary.user_id, [canary.name], None),
        )
    found |= {topic: one.records for topic, one in of_user.items()}
    seen |= {topic: one.records for topic, one in of_canary.items() if _must_see(settings, topic)}
    return found, seen, {topic: one.ends_by for topic, one in of_user.items() if one.ends_by}


def _must_see(settings: Settings, topic: str) -> bool:
    """Whether a canary appears there at once: the audit trail is written later, dead letters not at all."""
    always = (topics.INTERACTIONS, topics.CONSENTS, topics.RECEIPTS)
    return topic in always or (topic == topics.EVENTS and settings.events.publish)


def _check_source(settings: Settings, where: Where) -> None:
    """Raise an error unless there is a savepoint to search, or a folder for one and a job in Flink that takes it."""
    if where.savepoint is not None:
        _taken_at(where.savepoint)
    elif where.flink is not None:
        if where.work_dir is not None and not where.work_dir.is_dir():
            raise SettingsError(f"--work-dir {where.work_dir} is not a folder: create it, or correct the path")
        running_job(where.flink, settings.job.name)


@contextmanager
def _savepoint(settings: Settings, where: Where, say: Say) -> Iterator[Path]:
    """The folder of the savepoint to search; one taken here is deleted afterwards."""
    if where.savepoint is not None:
        yield where.savepoint
        return
    if where.flink is None:
        raise SettingsError(
            "a savepoint must be searched: give --flink to take one, or --savepoint for an existing one"
        )
    folder = Path(tempfile.mkdtemp(prefix="freshet-erasure-", dir=where.work_dir))
    try:
        say("taking a savepoint")
        yield take_savepoint(where.flink, settings.job.name, folder, where.timeout_s)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if folder.exists():
            say(f"{folder} could not be deleted and holds the state of all users: delete it")


def _taken_at(savepoint: Path) -> int:
    try:
        return int((savepoint / "_metadata").stat().st_mtime * 1000)
    except OSError as error:
        raise SettingsError(f"{savepoint} is not a savepoint: _metadata cannot be read: {error.strerror}") from None


def _applied_at(settings: Settings, erased: Erased) -> int | None:
    """When the job applied the erasure, in ms; an upper bound if its receipt has expired; None if unknown."""
    place = erased.erasure.partition, erased.erasure.offset
    tells = mentions_any(erased.names)
    for record in records(settings.kafka, topics.RECEIPTS):
        if tells(record):
            try:
                receipt = decode_receipt(record.value)
            except msgspec.DecodeError:  # a kind that only another release knows
                continue
            if isinstance(receipt, ConsentReceipt) and (receipt.partition, receipt.offset) == place:
                return receipt.at
    aged_out = clock_ms() - topics.RECEIPTS_RETENTION_MS
    return aged_out if erased.erasure.append_ts < aged_out else None


def _publish(settings: Settings, receipt: ErasureReceipt) -> None:
    producer = KafkaProducer(**python_kafka_options(settings.kafka), acks="all")
    try:
        producer.send(settings.kafka.topic(topics.RECEIPTS), encode_receipt(receipt)).get(timeout=30)
    finally:
        producer.close()


def summary(receipt: ErasureReceipt) -> str:
    """The outcome as text."""
    lines = [f"{receipt.pseudonym}: {receipt.status.replace('_', ' ')}, erased {day(receipt.erased_at)}"]
    lines += [f"  {reason}" for reason in receipt.missing]
    for topic, at in receipt.ends_by.items():
        lines.append(f"  {topic}: {receipt.found[topic]} records; retention ends them by {day(at)} at the latest")
    return "\n".join(lines)


def document_of(receipt: ErasureReceipt) -> str:
    """The receipt as JSON, as stored in `receipts`."""
    return msgspec.json.format(encode_receipt(receipt)).decode()

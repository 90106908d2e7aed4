"""Erasure, carried through and proved (GDPR, article 17)::

    python -m privacy.erasure rewrite-events --settings freshet.toml
    python -m privacy.erasure verify --settings freshet.toml --user ID --flink http://… [--export DIR] [--snapshots DIR]
    python -m privacy.erasure purge-consents --settings freshet.toml

The job erases state and Redis as it reads the record of an erasure. `rewrite-events` takes everybody who was erased out
of `events` (:mod:`privacy.rewrite_events`). `verify` then searches a savepoint, Redis, the topics and exports for one
user (`--user -` reads the id from standard input, so that it stands in no history of commands), and says: exit code 0
effective, complete, or returned; 1 something is left, and where; 2 not proved, because the search did not find what it
had planted, or it could not be made. The receipt is printed as JSON; if it says effective or complete, it is written to
`receipts` too.

`purge-consents` takes whose erasure is over out of `consents` (:mod:`privacy.purge_consents`).

A savepoint holds everybody's state: it is taken into a folder that only this user can enter, and deleted at the end.
With `--savepoint` one that is there is searched; then it is not the canary that must be found in it, but at least one
of the users who had consented before it was taken.
"""

import argparse
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec
from kafka import KafkaProducer
from kafka.errors import KafkaError

from adapters.kafka.reading import names_any, records
from adapters.kafka.settings import python_kafka_options
from jobs.clock import clock_ms, day
from jobs.registration import load_deployed
from jobs.savepoints import take_savepoint
from jobs.settings import Settings
from privacy import erasure_search as search
from privacy.canary import planted
from privacy.erased_users import erased_users, witnesses
from privacy.purge_consents import purge_consents
from privacy.rewrite_events import rewrite_events
from privacy.rules.erasure import Erased, Evidence, is_older, verdict
from schemas import topics
from schemas.errors import FreshetError, SettingsError
from schemas.pseudonyms import Pseudonymiser, load_key_ring
from schemas.receipts import ConsentReceipt, ErasureReceipt, decode_receipt, encode_receipt
from schemas.wire.codec_choice import codec_of

Say = Callable[[str], None]
TIMEOUT_S: Final = 120.0
EXIT_CODES: Final = {"effective": 0, "complete": 0, "returned": 0, "incomplete": 1, "not_proved": 2}


class Where(msgspec.Struct, frozen=True):
    """Where to look beside Redis and the topics: `flink` or `savepoint`, one of them; folders of exports, snapshots."""

    flink: str | None = None
    savepoint: Path | None = None
    work_dir: Path | None = None
    exports: Sequence[Path] = ()
    snapshots: Sequence[Path] = ()
    timeout_s: float = TIMEOUT_S


def verify(settings: Settings, user_id: str, where: Where, say: Say) -> ErasureReceipt:
    """Search for an erased user, and judge. Writes the receipt to `receipts` where it is good news."""
    hashes = Pseudonymiser(load_key_ring(settings.privacy.key_ring))
    names = hashes.all(user_id)
    say(f"looking for {', '.join(names)}")
    erased = erased_users(settings, hashes.all, user_id).get(names[0])
    if erased is None:
        raise SettingsError("no erasure of this user is on record in the consents topic: record it first")
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
    """(what was found of the user, what of the canary, by when retention ends it), by place."""
    codec = codec_of(settings.input)
    say("planting a canary")
    with planted(settings, hashes, where.timeout_s) as canary:
        with _savepoint(settings, where, say) as folder:
            say("searching the savepoint")
            # Of a savepoint that was there before the canary, earlier users must bear witness.
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
    """Where a canary shows at once: the audit trail is told later, and dead letters are for others."""
    always = (topics.INTERACTIONS, topics.CONSENTS, topics.RECEIPTS)
    return topic in always or (topic == topics.EVENTS and settings.events.publish)


@contextmanager
def _savepoint(settings: Settings, where: Where, say: Say) -> Iterator[Path]:
    """The folder of the savepoint to search; one that is taken here is deleted again."""
    if where.savepoint is not None:
        yield where.savepoint
        return
    if where.flink is None:
        raise SettingsError("a savepoint is searched: say where Flink is (--flink), or which one it is (--savepoint)")
    folder = Path(tempfile.mkdtemp(prefix="freshet-erasure-", dir=where.work_dir))
    try:
        say("taking a savepoint")
        yield take_savepoint(where.flink, settings.job.name, folder, where.timeout_s)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if folder.exists():
            say(f"{folder} could not be deleted, and holds everybody's state: delete it")


def _taken_at(savepoint: Path) -> int:
    try:
        return int((savepoint / "_metadata").stat().st_mtime * 1000)
    except OSError as error:
        raise SettingsError(f"{savepoint} is not a savepoint: _metadata cannot be read: {error.strerror}") from None


def _applied_at(settings: Settings, erased: Erased) -> int | None:
    """When the job carried the erasure out, in ms; no later than that if its receipt has aged out; None: not known."""
    place = erased.erasure.partition, erased.erasure.offset
    tells = names_any(erased.names)
    for record in records(settings.kafka, topics.RECEIPTS):
        if tells(record):
            try:
                receipt = decode_receipt(record.value)
            except msgspec.DecodeError:  # of a kind that only another release has
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
    """The outcome in words."""
    lines = [f"{receipt.pseudonym}: {receipt.status.replace('_', ' ')}, erased {day(receipt.erased_at)}"]
    lines += [f"  {reason}" for reason in receipt.missing]
    for topic, at in receipt.ends_by.items():
        lines.append(f"  {topic}: {receipt.found[topic]} records; retention ends them by {day(at)} at the latest")
    return "\n".join(lines)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main(arguments: list[str] | None = None) -> int:
    """The command; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        settings = load_deployed(options.settings)
        if options.command == "rewrite-events":
            rewrite_events(settings, _say)
            return 0
        if options.command == "purge-consents":
            purge_consents(settings, _say)
            return 0
        user_id = sys.stdin.readline().rstrip("\n") if options.user == "-" else options.user
        if not user_id:
            raise SettingsError("no user id was given")
        places = options.flink, options.savepoint, options.work_dir, options.export, options.snapshots
        receipt = verify(settings, user_id, Where(*places, options.timeout_s), _say)
    except FreshetError as error:
        _say(f"error: {error}")
        return 2
    except KafkaError as error:
        _say(f"error: Kafka did not do what was asked ({type(error).__name__}); the command may be given again")
        return 2
    except KeyboardInterrupt:
        _say("interrupted; the command may be given again")
        return 130
    _say(summary(receipt))
    print(msgspec.json.format(encode_receipt(receipt)).decode())
    return EXIT_CODES[receipt.status]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m privacy.erasure", description="Carry erasures through, prove them."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    rewriting = commands.add_parser("rewrite-events", help="take everybody who was erased out of the events topic")
    verifying = commands.add_parser("verify", help="search for an erased user everywhere, and write the receipt")
    purging = commands.add_parser("purge-consents", help="take users whose erasure is over out of the consents topic")
    for command in (rewriting, verifying, purging):
        command.add_argument("--settings", type=Path, required=True, help="the TOML file of the job")
    verifying.add_argument("--user", required=True, metavar="ID", help="the user id; - reads it from standard input")
    state = verifying.add_mutually_exclusive_group(required=True)
    state.add_argument("--flink", metavar="URL", help="where Flink's REST interface is: a savepoint is taken")
    state.add_argument("--savepoint", type=Path, metavar="DIR", help="search this savepoint and take none")
    verifying.add_argument("--work-dir", type=Path, metavar="DIR", help="where to: a folder that Flink shares")
    for name, what in (("--export", "an export to search"), ("--snapshots", "where checkpoints and savepoints are")):
        verifying.add_argument(name, type=Path, action="append", default=[], metavar="DIR", help=what)
    verifying.add_argument("--timeout-s", type=float, default=TIMEOUT_S, help="how long to wait for job and Flink")
    return parser


if __name__ == "__main__":
    # Ended by SIGTERM, too, it erases its canary and deletes the savepoint.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    sys.exit(main())

"""A compliance report over a period, as Markdown and as HTML::

    python -m privacy.compliance --settings freshet.toml --out DIR                    # the last 30 days, today included
    python -m privacy.compliance --settings freshet.toml --out DIR --from 2026-01-01 --to 2026-02-01 [--k 20]
                              [--heads FILE …] [--public-key HEX …] [--trail ID …]

Days are days of UTC, and that of `--to` is the first that is left out. DIR gets `report.md` and `report.html`. Exit
code 0: the audit trail is whole; 1: it is not, and the report says so on its first line; 2: there is no report.
The trail is verified as `python -m privacy.audit verify` does it. It is read three times, and the verification holds it
in memory; what the report itself holds, `privacy/rules/compliance.py` says. The job need not run.
"""

import argparse
import os
import sys
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Final

from kafka.errors import KafkaError

from adapters.kafka.reading import records
from jobs.settings import Settings, load_settings
from privacy.audit import add_trust, verification
from privacy.compliance_document import Circumstances, compliance_document
from privacy.document import Document, html, markdown
from privacy.retention import retention
from privacy.rules.audit_verify import Verification
from privacy.rules.compliance import Compliance, Period, Report, told_first
from privacy.rules.suppression import K_LEAST
from schemas import topics
from schemas.errors import FreshetError
from schemas.pseudonyms import load_key_ring
from schemas.signing import load_signing_key

DAYS: Final = 30


def report_of(settings: Settings, period: Period, k: int, verified: Verification) -> Report:
    """The figures of `period`, from the topics as they stand. Of the trail counts what is proved."""
    counted = Compliance(period, k, told_first(_proved(settings, verified)))
    for raw in _values(settings, topics.RECEIPTS):
        counted.prove(raw)
    for raw in _proved(settings, verified):
        counted.add(raw)
    interactions = settings.kafka.topic(topics.INTERACTIONS)
    for raw in _values(settings, topics.DEAD_LETTERS):
        counted.reject(raw, interactions)
    return counted.report()


def _proved(settings: Settings, verified: Verification) -> Iterator[bytes]:
    """The records of the trail, but for those that nobody vouches for, and those that came after it was verified."""
    for record in records(settings.kafka, topics.AUDIT):
        if verified.vouches_for(record.partition, record.offset):
            yield record.value or b""


def _values(settings: Settings, topic: str) -> Iterator[bytes]:
    for record in records(settings.kafka, topic):
        yield record.value or b""


def document_of(settings: Settings, report: Report, verified: Verification, now_ms: int) -> Document:
    """The report as a document, with what the settings say beside it."""
    ring = load_key_ring(settings.privacy.key_ring)
    given = Circumstances(verified, retention(settings), ring, now_ms, settings.privacy.snapshots_kept_ms)
    return compliance_document(report, given)


def write(folder: Path, document: Document) -> list[Path]:
    """Put both forms into `folder`, each in the place of an earlier one at once."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, text in (("report.md", markdown(document)), ("report.html", html(document))):
        draft, path = folder / f".{name}.{os.getpid()}", folder / name
        draft.write_text(text, encoding="utf-8")
        draft.replace(path)
        written.append(path)
    return written


def period_of(start: date | None, end: date | None, today: date) -> Period:
    """From the day `start` to before the day `end`; left out, 30 days, and up to today.

    >>> period_of(None, date(2026, 2, 1), date(2026, 5, 5))
    Period(start_ms=1767312000000, end_ms=1769904000000)
    """
    end = end or today + timedelta(days=1)
    start = start or end - timedelta(days=DAYS)
    if start >= end:
        raise ValueError(f"--from {start} must be before --to {end}")
    return Period(_ms(start), _ms(end))


def _ms(at: date) -> int:
    return int(datetime(at.year, at.month, at.day, tzinfo=UTC).timestamp()) * 1_000


def main(arguments: list[str] | None = None) -> int:
    """The command; returns the exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    now_ms = time.time_ns() // 1_000_000
    try:
        period = period_of(options.start, options.end, datetime.fromtimestamp(now_ms / 1000, UTC).date())
    except ValueError as error:
        parser.error(str(error))
    try:
        settings = load_settings(options.settings)
        keys = options.public_key or [load_signing_key(settings.audit.signing_key).public]
        verified = verification(settings, keys, options.heads, options.trail)
        report = report_of(settings, period, options.k, verified)
        paths = write(options.out, document_of(settings, report, verified, now_ms))
    except FreshetError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {options.out} cannot be written: {error.strerror}", file=sys.stderr)
        return 2
    except KafkaError as error:
        print(f"error: not done: {type(error).__name__}", file=sys.stderr)
        return 2
    print(*(f"wrote {path}" for path in paths), sep="\n")
    if verified.findings:
        print(f"the audit trail is not whole: {len(verified.findings)} findings", file=sys.stderr)
    return 1 if verified.findings else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m privacy.compliance", description="Write a compliance report.")
    parser.add_argument("--settings", type=Path, required=True, help="the TOML file of the job")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where report.md and report.html go")
    parser.add_argument("--from", type=date.fromisoformat, dest="start", metavar="DAY", help="the first day, UTC")
    parser.add_argument("--to", type=date.fromisoformat, dest="end", metavar="DAY", help="the day after the last")
    parser.add_argument("--k", type=_k, default=K_LEAST, help=f"no figure of fewer persons is shown; {K_LEAST} or more")
    add_trust(parser)
    return parser


def _k(text: str) -> int:
    if int(text) < K_LEAST:
        raise argparse.ArgumentTypeError(f"must be at least {K_LEAST}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())

"""A compliance report over a period, as Markdown and as HTML (`freshet report`).

The trail is verified first (:mod:`privacy.audit_verification`). It is read three times, and verification holds it in
memory; `privacy/rules/compliance.py` says what the report itself holds. The job need not run.
"""

import os
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Final

from adapters.kafka.reading import records
from adapters.secrets.key_rings import load_key_ring
from jobs.clock import clock_ms
from jobs.settings import Settings
from privacy.compliance_document import Circumstances, compliance_document
from privacy.document import Document, html, markdown
from privacy.retention import retention
from privacy.rules.audit_verify import Verification
from privacy.rules.compliance import Compliance, Period, Report, last_reported_offsets
from schemas import topics

DAYS: Final = 30


def write_report(settings: Settings, out: Path, period: Period, k: int, verified: Verification) -> list[Path]:
    """Write the report of `period` into the folder `out`, withholding figures of fewer than `k` persons."""
    now_ms = clock_ms()
    return write(out, document_of(settings, report_of(settings, period, k, verified), verified, now_ms))


def report_of(settings: Settings, period: Period, k: int, verified: Verification) -> Report:
    """The figures of `period`, from the current topics. Of the trail, only proved records count."""
    counted = Compliance(period, k, last_reported_offsets(_proved(settings, verified)))
    for raw in _values(settings, topics.RECEIPTS):
        counted.prove(raw)
    for raw in _proved(settings, verified):
        counted.add(raw)
    interactions = settings.kafka.topic(topics.INTERACTIONS)
    for raw in _values(settings, topics.DEAD_LETTERS):
        counted.reject(raw, interactions)
    return counted.report()


def _proved(settings: Settings, verified: Verification) -> Iterator[bytes]:
    """The proved records of the trail, without those that arrived after verification."""
    for record in records(settings.kafka, topics.AUDIT):
        if verified.is_proved(record.partition, record.offset):
            yield record.value or b""


def _values(settings: Settings, topic: str) -> Iterator[bytes]:
    for record in records(settings.kafka, topic):
        yield record.value or b""


def document_of(settings: Settings, report: Report, verified: Verification, now_ms: int) -> Document:
    """The report as a document, together with the settings."""
    ring = load_key_ring(settings.privacy.key_ring)
    given = Circumstances(verified, retention(settings), ring, now_ms, settings.privacy.snapshots_kept_ms)
    return compliance_document(report, given)


def write(folder: Path, document: Document) -> list[Path]:
    """Write both forms into `folder`, replacing earlier ones atomically."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, text in (("report.md", markdown(document)), ("report.html", html(document))):
        draft, path = folder / f".{name}.{os.getpid()}", folder / name
        draft.write_text(text, encoding="utf-8")
        draft.replace(path)
        written.append(path)
    return written


def period_of(start: date | None, end: date | None, today: date) -> Period:
    """From the day `start` up to but not including the day `end`. Defaults: 30 days, up to today.

    >>> period_of(None, date(2026, 2, 1), date(2026, 5, 5))
    Period(start_ms=1767312000000, end_ms=1769904000000)
    """
    end = end or today + timedelta(days=1)
    start = start or end - timedelta(days=DAYS)
    if start >= end:
        raise ValueError(f"--from {start} must be before --to {end}")
    return Period(_ms(start), _ms(end))


def today() -> date:
    """The current day, UTC."""
    return datetime.now(UTC).date()


def _ms(at: date) -> int:
    return int(datetime(at.year, at.month, at.day, tzinfo=UTC).timestamp()) * 1_000

"""Verifies the audit trail from outside the job, and saves its signed heads (`freshet audit`).

Signatures count for the topic that is read; a trail moved here from another topic was signed for that one. Verification
needs only the public key, not the signing key.
"""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from adapters.files.edited_files import read_edited
from adapters.kafka.reachability import require_reachable_broker
from adapters.kafka.reading import TopicAsOfNow
from adapters.kafka.settled_topic import has_topic
from adapters.secrets.signing_keys import load_signing_key
from jobs.clock import clock_ms
from jobs.registration import last_recorded
from jobs.settings import Settings
from jobs.trail import trail_id
from privacy.rules.audit_proof import Line, Trust, read_head
from privacy.rules.audit_verify import Finding, Times, Verification, verify
from schemas import topics
from schemas.errors import SettingsError

ATTEMPTS = 3
PAUSE_S = 2.0


def verification(
    settings: Settings, public_keys: list[bytes], head_files: list[Path], trails: Sequence[str] = ()
) -> Verification:
    """Verify the trail in the topics, and against heads saved in files.

    `trails` are further ids that signatures may be for. The two topics are committed one after the other, so a head may
    appear a moment before its records: hence the retries.
    """
    trail = trail_id(settings.kafka)
    trust = Trust(public_keys, [trail, *trails])
    for attempt in range(ATTEMPTS):
        now_ms = clock_ms()
        heads = [*_lines(settings, topics.AUDIT_HEADS), *_saved(head_files)]
        times = Times(now_ms - topics.AUDIT_RETENTION_MS, now_ms)
        found = verify(_lines(settings, topics.AUDIT), heads, trust, times)
        if not found.findings:
            break
        if attempt < ATTEMPTS - 1:
            time.sleep(PAUSE_S)
    else:
        found = verify(_lines(settings, topics.AUDIT), heads, trust, times, _aborted(settings, found.ends))
    if complaint := complaint_about_topic(submitted_with(settings), trail, trails):
        found.findings.append(Finding(-1, -1, complaint))
    return found


def public_keys(settings: Settings) -> list[bytes]:
    """The public keys of the settings, which verify signatures."""
    return [load_signing_key(settings.audit.signing_key).public]


def submitted_with(settings: Settings) -> str:
    """The trail that the last submission recorded; "" without a record."""
    if not has_topic(settings.kafka, topics.DEPLOYMENT):
        return ""
    recorded = last_recorded(settings.kafka)
    return "" if recorded is None else recorded.trail


def complaint_about_topic(recorded: str, trail: str, moved_from: Sequence[str]) -> str | None:
    """Report that the topic was deleted and re-created, which would empty it without a trace; None otherwise.

    >>> complaint_about_topic("one", "two", [])
    'missing: the job was submitted to write to the topic one, and this is two: it was deleted and created again'
    >>> complaint_about_topic("one", "one", []), complaint_about_topic("", "two", [])
    (None, None)
    """
    if not recorded or recorded == trail or recorded in moved_from:
        return None
    return (
        f"missing: the job was submitted to write to the topic {recorded}, and this is {trail}: it was deleted and "
        "created again"
    )


def _lines(settings: Settings, topic: str, isolation_level: str = "read_committed") -> Iterator[Line]:
    require_reachable_broker(settings.kafka)
    for record in TopicAsOfNow(settings.kafka, topic, isolation_level=isolation_level):
        yield Line(record.partition, record.offset, record.value or b"")


def _aborted(settings: Settings, ends: Mapping[int, int]) -> Iterator[Line]:
    """The records of the trail that only a reader of uncommitted records gets, up to the last committed offsets."""
    committed = {(line.partition, line.offset) for line in _lines(settings, topics.AUDIT)}
    for line in _lines(settings, topics.AUDIT, "read_uncommitted"):
        if (line.partition, line.offset) not in committed and line.offset <= ends.get(line.partition, -1):
            yield line


def _saved(files: list[Path]) -> Iterator[Line]:
    """Heads from files, numbered by line, in the partition -1, which does not exist."""
    for path in files:
        lines = _lines_of(path)
        if not any(lines):
            raise SettingsError(f"heads {path} contains no heads: was it truncated?")
        for number, line in enumerate(lines, start=1):
            yield Line(-1, number, line)


def _lines_of(path: Path) -> list[bytes]:
    try:
        return read_edited(path).splitlines()
    except OSError as error:
        raise SettingsError(f"heads {path} cannot be read: {error.strerror}") from None


def save_heads(settings: Settings, out: Path) -> int:
    """Add the topic's heads that `out` lacks, atomically; returns how many.

    Raises :class:`SettingsError` if a line of `out` is not a head. Topic records that are not heads are skipped;
    verification reports them.
    """
    saved = _lines_of(out) if out.exists() else []
    for number, raw in enumerate(saved, start=1):
        if read_head(Line(-1, number, raw)) is None:
            raise SettingsError(f"heads {out}: line {number} is not a head; nothing was added: verify the file first")
    known = set(saved)
    lines = _lines(settings, topics.AUDIT_HEADS)
    new = [line.raw for line in lines if line.raw not in known and read_head(line) is not None]
    # `verify` would take a half-written line for a forged head, so replace the file atomically.
    draft = out.with_name(f".{out.name}.part")
    try:
        with draft.open("wb") as file:
            file.writelines(raw + b"\n" for raw in [*saved, *new])
            file.flush()
            os.fsync(file.fileno())
        draft.replace(out)
    except OSError as error:
        raise SettingsError(f"heads {out} cannot be written: {error.strerror}") from None
    return len(new)


def report(found: Verification) -> str:
    """The outcome as text."""
    lines = ["bucket  segments   records  first    last  signed up to"]
    for chain in found.chains:
        place = f"{chain.first_seq:>6}  {chain.last_seq:>6}  {chain.signed_seq:>12}"
        lines.append(f"{chain.bucket:>6}  {chain.segments:>8}  {chain.records:>8} {place}")
    lines += [f"note: {remark}" for remark in found.remarks]
    lines += [f"FOUND: bucket {bucket} record {seq}: {text}" for bucket, seq, text in found.findings]
    total = sum(chain.records for chain in found.chains)
    outcome = f"{len(found.findings)} findings" if found.findings else "all in place"
    not_proved = f"; {len(found.unproved)} are not signed, or not yet" if found.unproved else ""
    lines.append(f"{total} records, {outcome}{not_proved}")
    return "\n".join(lines)


def as_document(found: Verification) -> dict[str, Any]:
    """The outcome for scripts."""
    return {
        "chains": [chain._asdict() for chain in found.chains],
        "findings": [finding._asdict() for finding in found.findings],
        "remarks": found.remarks,
        "not_proved": len(found.unproved),
    }

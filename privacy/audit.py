"""The audit trail from outside of the job::

    python -m privacy.audit verify     --settings freshet.toml [--heads FILE …] [--public-key HEX …] [--trail ID …]
    python -m privacy.audit save-heads --settings freshet.toml --out FILE
    python -m privacy.audit public-key --settings freshet.toml
    python -m privacy.audit new-key FILE

`verify` names every record that was changed, is missing, stands twice, was put in or is out of place; exit code 0:
there is none, 1: some, 2: not done. It believes what was signed for the topic that it reads; a trail that was moved
here from another topic is signed for that one: name it by Kafka's id with `--trail`. `save-heads` adds the signed heads
that are not yet in FILE to it: keep FILE where nobody who can write to Kafka can write, and give it to `verify`.
Verifying needs the public key only, not the signing key.
"""

import argparse
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from kafka.errors import KafkaError

from adapters.kafka.reading import records
from adapters.kafka.settled_topic import has_topic
from jobs.clock import clock_ms
from jobs.registration import last_recorded
from jobs.settings import Settings, load_settings
from jobs.trail import trail_id
from privacy.rules.audit_proof import Line, Trust
from privacy.rules.audit_verify import Finding, Times, Verification, verify
from schemas import topics
from schemas.errors import FreshetError, SettingsError
from schemas.signing import load_signing_key, write_signing_key

ATTEMPTS = 3
PAUSE_S = 2.0


def verification(
    settings: Settings, public_keys: list[bytes], head_files: list[Path], trails: Sequence[str] = ()
) -> Verification:
    """The trail as it stands in the topics, and with the heads that were kept in files; `trails` are further ones that
    signatures may be for.

    The two topics are committed one after the other, so a head may show a moment before the records that it is of.
    """
    trail = trail_id(settings.kafka)
    trust = Trust(public_keys, [trail, *trails])
    for attempt in range(ATTEMPTS):
        now_ms = clock_ms()
        heads = [*_lines(settings, topics.AUDIT_HEADS), *_saved(head_files)]
        found = verify(_lines(settings, topics.AUDIT), heads, trust, Times(now_ms - topics.AUDIT_RETENTION_MS, now_ms))
        if not found.findings or attempt == ATTEMPTS - 1:
            break
        time.sleep(PAUSE_S)
    if complaint := complaint_about_topic(submitted_with(settings), trail, trails):
        found.findings.append(Finding(-1, -1, complaint))
    return found


def submitted_with(settings: Settings) -> str:
    """The trail that the last submission was told to write to; "" where there is no record of one."""
    if not has_topic(settings.kafka, topics.DEPLOYMENT):
        return ""
    recorded = last_recorded(settings.kafka)
    return "" if recorded is None else recorded.trail


def complaint_about_topic(recorded: str, trail: str, moved_from: Sequence[str]) -> str | None:
    """Whether the topic was deleted and made again behind the back of the job, which would empty it without a trace.

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


def _lines(settings: Settings, topic: str) -> Iterator[Line]:
    for record in records(settings.kafka, topic):
        yield Line(record.partition, record.offset, record.value or b"")


def _saved(files: list[Path]) -> Iterator[Line]:
    """Heads in files; their places are those of lines, in a partition that there is not."""
    for path in files:
        try:
            raw = path.read_bytes()
        except OSError as error:
            raise SettingsError(f"heads {path} cannot be read: {error.strerror}") from None
        for number, line in enumerate(raw.splitlines(), start=1):
            yield Line(-1, number, line)


def save_heads(settings: Settings, out: Path) -> int:
    """Add the heads of the topic that are not in `out` yet, all at once or not at all; returns how many."""
    saved = [line.raw for line in _saved([out])] if out.exists() else []
    known = set(saved)
    new = [line.raw for line in _lines(settings, topics.AUDIT_HEADS) if line.raw not in known]
    # A half-written line would be a forged head to `verify`, so the file is replaced by a whole one.
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
    """The outcome in words."""
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


def main(arguments: list[str] | None = None) -> int:
    """The command; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        if options.command == "new-key":
            write_signing_key(options.file)
            print(f"wrote {options.file}; bring it to every worker and nowhere else")
            return 0
        settings = load_settings(options.settings)
        if options.command == "save-heads":
            print(f"{save_heads(settings, options.out)} heads added to {options.out}")
        elif options.command == "public-key":
            print(load_signing_key(settings.audit.signing_key).public.hex())
        else:
            keys = options.public_key or [load_signing_key(settings.audit.signing_key).public]
            found = verification(settings, keys, options.heads, options.trail)
            print(report(found))
            return 1 if found.findings else 0
    except FreshetError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except FileExistsError as error:
        print(f"error: {error.filename} is there already, and a key is never overwritten", file=sys.stderr)
        return 2
    except (KafkaError, OSError) as error:
        print(f"error: not done: {type(error).__name__}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m privacy.audit", description="The audit trail: verify it, keep heads."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    verifying = commands.add_parser("verify", help="name every record that was changed, is missing or out of place")
    add_trust(verifying)
    saving = commands.add_parser("save-heads", help="keep the signed heads outside of Kafka")
    saving.add_argument("--out", type=Path, required=True)
    public = commands.add_parser("public-key", help="print the key that signatures are verified with")
    for command in (verifying, saving, public):
        command.add_argument("--settings", type=Path, required=True, help="the TOML file of the job")
    commands.add_parser("new-key", help="write a new signing key").add_argument("file", type=Path)
    return parser


def add_trust(parser: argparse.ArgumentParser) -> None:
    """The options that say what is believed of a trail."""
    parser.add_argument("--heads", type=Path, action="append", default=[], help="a file of `privacy.audit save-heads`")
    parser.add_argument("--public-key", type=hex_key, action="append", default=[], help="instead of the settings' key")
    parser.add_argument(
        "--trail", action="append", default=[], metavar="ID", help="Kafka's id of a topic that the trail was moved from"
    )


def hex_key(text: str) -> bytes:
    """The public key that an option gives in hexadecimal."""
    raw = bytes.fromhex(text)
    if len(raw) != 32:
        raise argparse.ArgumentTypeError("a public key is 64 hexadecimal digits")
    return raw


if __name__ == "__main__":
    sys.exit(main())

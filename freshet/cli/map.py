"""`freshet map`: shows what the job makes of records of others."""

import sys
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from freshet.cli.shape import ExitCode, SettingsFile, command, group

if TYPE_CHECKING:
    from schemas.wire.codecs import Mapped

app = group("map", "How records of others are read as interactions.")


@command(app, "test", "freshet map test --settings freshet.toml events.jsonl")
def test(
    settings: SettingsFile,
    events: Annotated[
        str, typer.Argument(metavar="FILE", help="A file with a record on each line; - is standard input.")
    ],
    records: Annotated[int, typer.Option(min=1, help="How many records to show.")] = 10,
) -> int:
    """Show what becomes of the first records in a file, by `[input.map]`, field by field.

    Reads only the file and the settings. Exits with 1 if a record would be rejected, or none be an interaction.
    """
    from adapters.schema_sources import codec_of
    from jobs.settings import load_settings
    from schemas.errors import SettingsError
    from schemas.wire.codecs import BadRecord

    read = codec_of(load_settings(settings).input).mapped
    if read is None:
        raise SettingsError(f'{settings} has no [input.map]: add one, for example with preset = "segment"')
    found = rejected = 0
    for number, raw in enumerate(_first_lines(events, records), start=1):
        try:
            mapped = read(raw)
        except BadRecord as bad:
            print(f"record {number}: rejected, {bad.reason.value}")
            rejected += 1
            continue
        found, rejected = found + len(mapped.events), rejected + len(mapped.faults)
        print(f"record {number}: {_told(mapped)}")
    return ExitCode.FINDINGS if rejected or not found else ExitCode.DONE


def _first_lines(events: str, records: int) -> list[bytes]:
    """The first lines of a file that are not empty. Raises :class:`FileError`."""
    from schemas.errors import FileError

    try:
        with nullcontext(sys.stdin.buffer) if events == "-" else Path(events).open("rb") as file:
            return list(islice((raw for line in file if (raw := line.rstrip(b"\r\n"))), records))
    except OSError as error:
        raise FileError(f"{events} cannot be read: {error.strerror}") from None


def _told(mapped: "Mapped") -> str:
    import msgspec

    lines = ["ignored"] if mapped.ignored and not mapped.events else []
    for event in mapped.events:
        lines.append(event.type)
        fields = msgspec.structs.asdict(event)
        lines += [
            f"  {name} = {value}"
            for name, value in fields.items()
            if value is not None and name not in ("type", "schema_v")
        ]
    lines += [f"rejected, {fault.reason.value}" for fault in mapped.faults]
    return "\n  ".join(lines)

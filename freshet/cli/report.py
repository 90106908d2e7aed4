"""`freshet report`: a compliance report over a period."""

from datetime import datetime
from pathlib import Path
from typing import Annotated, Final

import typer

from freshet.cli.shape import (
    ExitCode,
    Heads,
    PublicKeys,
    SettingsFile,
    Trails,
    command,
    in_existing_folder,
    root,
    say,
)

K_LEAST: Final = 10
"""The value of `privacy.rules.suppression`, which is not imported for help; a test compares the two."""
DAY: Final = ["%Y-%m-%d"]


@command(
    root, "report", "freshet report --settings freshet.toml --out july --from 2026-07-01 --to 2026-08-01 --heads heads"
)
def report(
    settings: SettingsFile,
    out: Annotated[
        Path,
        typer.Option(metavar="DIR", callback=in_existing_folder, help="Output folder of report.md and report.html."),
    ],
    start: Annotated[
        datetime | None,
        typer.Option("--from", formats=DAY, metavar="DAY", help="The first day, UTC; default: 30 days before the end."),
    ] = None,
    end: Annotated[
        datetime | None,
        typer.Option(
            "--to", formats=DAY, metavar="DAY", help="The first day after the period, UTC; default: tomorrow."
        ),
    ] = None,
    k: Annotated[int, typer.Option("--k", min=K_LEAST, help="Withhold figures of fewer persons.")] = K_LEAST,
    heads: Heads = None,
    public_key: PublicKeys = None,
    trail: Trails = None,
) -> int:
    """Write a compliance report over a period, as Markdown and as HTML.

    Verifies the audit trail as `freshet audit verify` does. If it is not intact, the report's first line says so, and
    the exit code is 1. The job need not run.
    """
    from jobs.settings import load_settings
    from privacy.audit_verification import public_keys, verification
    from privacy.compliance import period_of, today, write_report

    try:
        period = period_of(start and start.date(), end and end.date(), today())
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    loaded = load_settings(settings)
    verified = verification(loaded, public_key or public_keys(loaded), heads or [], trail or [])
    for path in write_report(loaded, out, period, k, verified):
        print(f"wrote {path}")
    if verified.findings:
        say(f"the audit trail is not intact: {len(verified.findings)} findings; `freshet audit verify` names them")
    return ExitCode.FINDINGS if verified.findings else ExitCode.DONE

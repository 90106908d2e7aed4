"""`freshet audit`: verifies the audit trail from outside the job."""

from pathlib import Path
from typing import Annotated

import typer

from freshet.cli.shape import (
    AsJson,
    ExitCode,
    Heads,
    PublicKeys,
    SettingsFile,
    Trails,
    command,
    group,
    in_existing_folder,
    print_json,
)

app = group("audit", "Verify the audit trail, and keep its signed heads.")


@command(app, "verify", "freshet audit verify --settings freshet.toml --heads heads.jsonl")
def verify(
    settings: SettingsFile,
    heads: Heads = None,
    public_key: PublicKeys = None,
    trail: Trails = None,
    as_json: AsJson = False,
) -> int:
    """Verify the audit trail: find records that were changed, removed, duplicated, inserted or moved.

    Signatures count only for the topic that is read. A trail that was moved here from another topic was signed for that
    topic: name it by Kafka's id with --trail. The signing key itself is not needed. Exit code 1 if there are findings.
    """
    from jobs.settings import load_settings
    from privacy.audit_verification import as_document, public_keys, report, verification

    loaded = load_settings(settings)
    found = verification(loaded, public_key or public_keys(loaded), heads or [], trail or [])
    if as_json:
        print_json(as_document(found))
    else:
        print(report(found))
    return ExitCode.FINDINGS if found.findings else ExitCode.DONE


@command(app, "save-heads", "freshet audit save-heads --settings freshet.toml --out heads.jsonl")
def save_heads(
    settings: SettingsFile,
    out: Annotated[
        Path,
        typer.Option(metavar="FILE", callback=in_existing_folder, help="The file of heads; new ones are appended."),
    ],
) -> None:
    """Save signed heads to a file, keeping those that it already has.

    Keep the file where nobody who can write to Kafka can write, and pass it to `freshet audit verify`.
    """
    from jobs.settings import load_settings
    from privacy.audit_verification import save_heads as save

    print(f"{save(load_settings(settings), out)} heads added to {out}")


@command(app, "public-key", "freshet audit public-key --settings freshet.toml")
def public_key(settings: SettingsFile) -> None:
    """Print the public key that verifies the signatures."""
    from jobs.settings import load_settings
    from privacy.audit_verification import public_keys

    for key in public_keys(load_settings(settings)):
        print(key.hex())

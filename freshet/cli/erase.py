"""`freshet erase`: erasure, completed and proved (GDPR, article 17)."""

from pathlib import Path
from typing import Annotated

import typer

from freshet.cli.shape import SettingsFile, UserId, command, finite, group, print_json, read_user_id, say

app = group("erase", "Erase users, complete erasures, and prove them.")


@command(app, "user", "freshet erase user --settings freshet.toml --user -")
def user(settings: SettingsFile, user: UserId) -> None:
    """Record the erasure of a user: state and lists are deleted at once and never return.

    Then run `freshet erase rewrite-events` and, when snapshots have aged out, `freshet erase verify`.
    """
    user_id = read_user_id(user)
    from jobs.registration import load_for_opt_out
    from privacy.consent_recording import erase

    print_json(erase(load_for_opt_out(settings), user_id))


@command(app, "rewrite-events", "freshet erase rewrite-events --settings freshet.toml")
def rewrite_events(settings: SettingsFile) -> None:
    """Remove all erased users from the events topic.

    Run it within `min.compaction.lag.ms` (7 days) of an erasure.
    """
    from jobs.registration import load_for_opt_out
    from privacy.rewrite_events import rewrite_events as rewrite

    rewrite(load_for_opt_out(settings), say)


@command(
    app,
    "verify",
    "freshet erase verify --settings freshet.toml --user - --flink http://localhost:8081 --snapshots /var/lib/flink",
)
def verify(
    settings: SettingsFile,
    user: UserId,
    flink: Annotated[
        str | None, typer.Option(metavar="URL", help="Flink's REST URL; a savepoint is taken and deleted afterwards.")
    ] = None,
    savepoint: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Search this savepoint instead of taking one.")
    ] = None,
    work_dir: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder for the savepoint; Flink must have access to it.")
    ] = None,
    export: Annotated[list[Path] | None, typer.Option(metavar="DIR", help="An export to search.")] = None,
    snapshots: Annotated[
        list[Path] | None, typer.Option(metavar="DIR", help="A folder of checkpoints and savepoints.")
    ] = None,
    timeout_s: Annotated[
        float, typer.Option(min=0.001, callback=finite, help="How long to wait for the job and Flink, in seconds.")
    ] = 120.0,
) -> int:
    """Search everywhere for an erased user, and print the receipt as JSON; write it to `receipts` if it is a proof.

    Exit code 0: effective, complete, or returned; 1: data of the user is left, and where; 2: not proved, because the
    search missed the canaries that it had planted, or could not be done. A savepoint contains everybody's state: it is
    written to a folder that only your account can read. With --savepoint, users who had consented before it was taken
    serve as canaries.
    """
    if (flink is None) == (savepoint is None):
        raise typer.BadParameter("one of --flink and --savepoint is needed")
    user_id = read_user_id(user)
    from jobs.registration import load_deployed
    from privacy.erasure import EXIT_CODES, Where, document_of, summary
    from privacy.erasure import verify as look

    where = Where(flink, savepoint, work_dir, export or [], snapshots or [], timeout_s)
    receipt = look(load_deployed(settings), user_id, where, say)
    say(summary(receipt))
    print(document_of(receipt))
    return EXIT_CODES[receipt.status]


@command(app, "purge-consents", "freshet erase purge-consents --settings freshet.toml")
def purge_consents(settings: SettingsFile) -> None:
    """Remove users whose tombstone has expired from the consents topic; run it daily."""
    from jobs.registration import load_deployed
    from privacy.purge_consents import purge_consents as purge

    purge(load_deployed(settings), say)

"""`freshet consent`: records what a user decided, as a frontend does."""

from enum import StrEnum
from typing import Annotated, Literal, cast

import typer

from freshet.cli.shape import SettingsFile, UserId, command, group, print_json, read_user_id

app = group("consent", "Record what a user decided about their data.")


class PurposeName(StrEnum):
    """The purposes of :mod:`schemas.consents`, which is not imported for help; a test compares the two."""

    PERSONALISE = "personalise"
    MEASURE = "measure"
    TRAIN = "train"


Purposes = list[PurposeName] | None
Method = Annotated[str | None, typer.Option(help="How the user decided, for instance `call centre`.")]


@command(
    app, "record", "freshet consent record --settings freshet.toml --user - --level full --denied train --method letter"
)
def record(
    settings: SettingsFile,
    user: UserId,
    level: Annotated[Literal["none", "session", "full"], typer.Option(help="What may be kept and served.")],
    granted: Annotated[
        Purposes, typer.Option(help="A granted purpose. Several may be given; default: all of them.")
    ] = None,
    denied: Annotated[Purposes, typer.Option(help="A denied purpose. Several may be given.")] = None,
    method: Method = None,
    notice_version: Annotated[str | None, typer.Option(help="Version of the notice that the user saw.")] = None,
    jurisdiction: Annotated[str | None, typer.Option(help="The jurisdiction, as named in the policy file.")] = None,
    expires_at: Annotated[int | None, typer.Option(help="When the consent expires, in ms since the epoch.")] = None,
) -> None:
    """Record a user's consent; it replaces the previous one.

    A withdrawal is in effect when the command returns. Prints the position of the record, as JSON.
    """
    user_id = read_user_id(user)
    from jobs.clock import clock_ms
    from jobs.registration import load_for_opt_out
    from privacy.consent_recording import record as write
    from schemas.consents import ConsentChange, Purpose

    change = ConsentChange(
        user_id,
        level,
        clock_ms(),
        cast("list[Purpose] | None", granted or None),
        cast("list[Purpose] | None", denied or None),
        method,
        notice_version,
        jurisdiction,
        expires_at,
    )
    print_json(write(load_for_opt_out(settings), change)._asdict())


@command(app, "withdraw", "freshet consent withdraw --settings freshet.toml --user -")
def withdraw(settings: SettingsFile, user: UserId, method: Method = None) -> None:
    """Withdraw a user's consent; personalisation has ended when the command returns."""
    user_id = read_user_id(user)
    from jobs.clock import clock_ms
    from jobs.registration import load_for_opt_out
    from privacy.consent_recording import record as write
    from schemas.consents import ConsentChange

    print_json(write(load_for_opt_out(settings), ConsentChange(user_id, "none", clock_ms(), method=method))._asdict())

"""`freshet consent`: records what a user decided, as a frontend does."""

import re
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from freshet.cli.shape import SettingsFile, UserId, command, group, print_json, read_user_id

if TYPE_CHECKING:
    from schemas.consents import ConsentChange

app = group("consent", "Record what a user decided about their data.")


class PurposeName(StrEnum):
    """The purposes of :mod:`schemas.consents`, which is not imported for help; a test compares the two."""

    PERSONALISE = "personalise"
    MEASURE = "measure"
    TRAIN = "train"


def _short_text(text: str | None) -> str | None:
    from schemas.audit import is_name
    from schemas.events import ID_LENGTH_MAX

    if text is not None and (len(text) > ID_LENGTH_MAX or not is_name(text)):
        raise typer.BadParameter(
            f"must have a visible character, at most {ID_LENGTH_MAX} characters, and no control characters"
        )
    return text


def _label(text: str | None) -> str | None:
    if text is not None and not re.fullmatch(r"[A-Za-z0-9_.\-]{1,32}", text):
        raise typer.BadParameter("must have 1 to 32 characters, each a letter, a digit, '.', '_' or '-'")
    return text


Purposes = list[PurposeName] | None
Method = Annotated[
    str | None, typer.Option(callback=_short_text, help="How the user decided, for instance `call centre`.")
]


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
    notice_version: Annotated[
        str | None, typer.Option(callback=_short_text, help="Version of the notice that the user saw.")
    ] = None,
    jurisdiction: Annotated[
        str | None, typer.Option(callback=_label, help="The jurisdiction, as named in the policy file.")
    ] = None,
    expires_at: Annotated[int | None, typer.Option(help="When the consent expires, in ms since the epoch.")] = None,
) -> None:
    """Record a user's consent; it replaces the previous one.

    A withdrawal is in effect when the command returns. Prints the position of the record, as JSON.
    """
    user_id = read_user_id(user)
    if both := [purpose.value for purpose in granted or () if purpose in (denied or ())]:
        raise typer.BadParameter(f"{', '.join(both)} is also granted", param_hint="--denied")
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
    _check(change)
    print_json(write(load_for_opt_out(settings), change))


@command(app, "withdraw", "freshet consent withdraw --settings freshet.toml --user -")
def withdraw(settings: SettingsFile, user: UserId, method: Method = None) -> None:
    """Withdraw a user's consent; personalisation has ended when the command returns."""
    user_id = read_user_id(user)
    from jobs.clock import clock_ms
    from jobs.registration import load_for_opt_out
    from privacy.consent_recording import record as write
    from schemas.consents import ConsentChange

    change = ConsentChange(user_id, "none", clock_ms(), method=method)
    _check(change)
    print_json(write(load_for_opt_out(settings), change))


def _check(change: "ConsentChange") -> None:
    """Raise a usage error for an invalid change: sent as a record, it would count as a withdrawal."""
    from schemas.events import EVENT_TS_MAX, USER_ID_LENGTH_MAX
    from schemas.wire.consent_records import is_user_id

    if not is_user_id(change.user_id):
        raise typer.BadParameter(
            f"must have at most {USER_ID_LENGTH_MAX} characters, and no control characters", param_hint="--user"
        )
    if change.expires_at is not None and not change.ts < change.expires_at <= EVENT_TS_MAX:
        raise typer.BadParameter("must be a time in the future, in ms since the epoch", param_hint="--expires-at")

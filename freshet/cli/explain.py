"""`freshet explain`: why a list has its items."""

from typing import Annotated

import typer

from freshet.cli.shape import SettingsFile, UserId, command, print_json, read_user_id, root, visible_name


@command(root, "explain", 'freshet explain --settings freshet.toml --user - --role merchandiser --purpose "shelf 3"')
def explain(
    settings: SettingsFile,
    user: UserId,
    role: Annotated[
        str, typer.Option(parser=visible_name, metavar="<str>", help="Your role; recorded in the audit trail.")
    ],
    purpose: Annotated[
        str,
        typer.Option(
            parser=visible_name, metavar="<str>", help="The purpose of the request; recorded in the audit trail."
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print why the list of a user has its items: for each, the recent item without which it would score lowest.

    The running job provides the user's history. The model ranks it again without each recent item; nothing is
    estimated. The read is recorded in the audit trail.
    """
    user_id = read_user_id(user)
    from jobs.explanation import explain_list, in_words
    from jobs.registration import load_deployed
    from serving.held_data import access_command

    found = explain_list(load_deployed(settings), access_command(user_id, role, purpose))
    if as_json:
        import msgspec

        print_json(msgspec.to_builtins(found))
    else:
        print(in_words(found))

"""`freshet explain`: why a list has its items."""

from freshet.cli.shape import AsJson, OwnPurpose, OwnRole, SettingsFile, UserId, command, print_json, read_user_id, root


@command(root, "explain", 'freshet explain --settings freshet.toml --user - --role merchandiser --purpose "shelf 3"')
def explain(
    settings: SettingsFile,
    user: UserId,
    role: OwnRole,
    purpose: OwnPurpose,
    as_json: AsJson = False,
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

"""`freshet access`: the right of access (GDPR, articles 15 and 20)."""

from freshet.cli.shape import OwnPurpose, OwnRole, SettingsFile, UserId, command, print_json, read_user_id, root


@command(root, "access", 'freshet access --settings freshet.toml --user - --role officer --purpose "request 47"')
def access(
    settings: SettingsFile,
    user: UserId,
    role: OwnRole,
    purpose: OwnPurpose,
) -> None:
    """Print all data held about one person, as one JSON document.

    The running job provides its state; Redis and the topics are read directly. The access itself is recorded in the
    audit trail. Exports are separate files with other pseudonyms, and are not searched.
    """
    user_id = read_user_id(user)
    from jobs.registration import load_deployed
    from privacy.access import collect_personal_data

    print_json(collect_personal_data(load_deployed(settings), user_id, role, purpose))

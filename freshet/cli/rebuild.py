"""`freshet rebuild`: consents and lists in Redis from the job's state."""

from freshet.cli.shape import SettingsFile, command, root


@command(root, "rebuild", "freshet rebuild --settings freshet.toml")
def rebuild(settings: SettingsFile) -> None:
    """Rewrite all consents, lists and tombstones of erased users in Redis.

    The job does the first by itself, within a second, where Redis has lost data or another process took over. This is
    for what it cannot see, such as keys that somebody deleted. It waits for nothing: the job writes lists as it catches
    up, at `refresh.rebuilt_per_second`. Until then the answers are popular lists.
    """
    from jobs.settings import load_settings
    from privacy.rebuild import rebuild as begin

    written = begin(load_settings(settings))
    print(f"tombstones of {written} erased users stand again; the job writes consents and lists as it catches up")
